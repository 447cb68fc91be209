//! Which settings differ between two readings: a reload can follow those of `[limits]` alone.
//!
//! Every field is named here; the compiler tells of one that is not.

use super::{Admin, Aws, CertificateFiles, Events, Limits, Log, Notify, Outbox, Settings, Suppression};

macro_rules! differing {
    ($old:expr, $new:expr, $group:ident, $section:literal, $($key:ident),+ $(,)?) => {{
        let $group { $($key),+ } = $old;
        [$((concat!($section, stringify!($key)), *$key != $new.$key)),+]
            .into_iter()
            .filter_map(|(key, differs)| differs.then_some(key))
    }};
}

impl Settings {
    /// The keys of `[limits]` that `new` has otherwise.
    pub fn changed_limits(&self, new: &Self) -> Vec<&'static str> {
        differing!(
            &self.limits,
            new.limits,
            Limits,
            "limits.",
            message_bytes,
            header_bytes,
            header_fields,
            line_bytes,
            recipients,
            received_hops,
            memory_bytes,
            memory_wait_seconds,
            call_bytes,
            call_wait_seconds,
            calls_per_message,
            connections,
            refusals,
            connections_per_ip,
            connections_per_tenant,
            handshakes,
            messages_per_connection,
            command_bytes,
            auth_bytes,
            errors,
            commands_before_login,
            auth_failures,
            auth_delay_seconds,
            auth_delay_longest_seconds,
            auth_verifications,
            auth_wait_seconds,
            auth_cache_entries,
            auth_cache_seconds,
            proxy_seconds,
            handshake_seconds,
            command_seconds,
            command_seconds_unauthenticated,
            data_seconds,
            data_rate_bytes_per_second,
            data_grace_seconds,
            write_seconds,
            linger_seconds,
            drain_seconds,
        )
        .collect()
    }

    /// The other keys that `new` has otherwise, all of which need a restart; `listener` for any of a
    /// listener's.
    pub fn changed_beside_limits(&self, new: &Self) -> Vec<&'static str> {
        let Self {
            hostname,
            data_dir,
            tenants_file,
            node,
            workers,
            listeners,
            tls,
            limits: _,
            aws,
            outbox,
            notify,
            events,
            suppression,
            admin,
            log,
            places: _,
        } = self;
        let top = [
            ("hostname", *hostname != new.hostname),
            ("data_dir", *data_dir != new.data_dir),
            ("tenants_file", *tenants_file != new.tenants_file),
            ("node", *node != new.node),
            ("workers", *workers != new.workers),
            ("listener", *listeners != new.listeners),
        ];
        let tls = differing!(tls, new.tls, CertificateFiles, "tls.", certificate_file, private_key_file);
        let aws = differing!(
            aws,
            new.aws,
            Aws,
            "aws.",
            region,
            ses_endpoint_url,
            sqs_endpoint_url,
            calls_in_flight,
            bytes_in_flight,
            call_seconds,
            large_call_seconds,
            call_wait_seconds,
            max_send_rate,
        );
        let outbox = differing!(
            outbox,
            new.outbox,
            Outbox,
            "outbox.",
            messages,
            messages_per_tenant,
            bytes_per_tenant,
            disk_reserve_bytes,
            spill_bytes,
            writers,
            calls_in_flight,
            calls_per_stream,
            bytes_in_flight,
            data_deadline_seconds,
            dedupe_window_seconds,
            dedupe_entries,
            lease_seconds,
            unknown_wait_seconds,
            retry_first_seconds,
            retry_longest_seconds,
            throttle_first_seconds,
            throttle_longest_seconds,
            quota_wait_seconds,
            operator_first_seconds,
            operator_longest_seconds,
            max_age_transactional_hours,
            max_age_bulk_hours,
            max_age_marketing_hours,
        );
        let notify = differing!(notify, new.notify, Notify, "notify.", from, configuration_set);
        let events = differing!(
            events,
            new.events,
            Events,
            "events.",
            queue_url,
            pollers,
            wait_seconds,
            ledger_days,
            counter_days,
        );
        let suppression = differing!(
            suppression,
            new.suppression,
            Suppression,
            "suppression.",
            soft_bounces,
            soft_days,
            ses_sync,
            ses_sync_hours,
        );
        let admin = differing!(admin, new.admin, Admin, "admin.", address, allow_insecure);
        let log = differing!(log, new.log, Log, "log.", format, recipients, level);
        let top = top.into_iter().filter_map(|(key, differs)| differs.then_some(key));
        top.chain(tls)
            .chain(aws)
            .chain(outbox)
            .chain(notify)
            .chain(events)
            .chain(suppression)
            .chain(admin)
            .chain(log)
            .collect()
    }
}
