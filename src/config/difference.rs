//! Which settings differ between two readings: a reload can follow those of `[limits]` alone.
//!
//! Every field is named here; the compiler tells of one that is not.

use super::{
    Admin, Audit, Aws, CertificateFiles, Events, Exposure, Limits, Log, Notify, Outbox, Settings, Store, Suppression,
    Watch,
};

macro_rules! differing {
    ($old:expr, $new:expr, $group:ident, $section:literal, $($key:ident),+ $(,)?) => {{
        let $group { $($key),+ } = $old;
        [$((concat!($section, stringify!($key)), *$key != $new.$key)),+]
            .into_iter()
            .filter_map(|(key, differs)| differs.then_some(key))
    }};
}

impl Settings {
    /// The keys of `[limits]` and `[reputation]` that `new` has otherwise.
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
        .chain(self.changed_rules(new))
        .collect()
    }

    /// The keys of `[reputation]` that `new` has otherwise; they are followed as limits are.
    fn changed_rules(&self, new: &Self) -> impl Iterator<Item = &'static str> {
        let (a, b) = (&self.reputation.rules, &new.reputation.rules);
        let keys = [
            ("reputation.enforce", a.enforce != b.enforce),
            ("reputation.least_recipients", a.least_recipients != b.least_recipients),
            ("reputation.least_bounces", a.least_bounces != b.least_bounces),
            ("reputation.least_complaints", a.least_complaints != b.least_complaints),
            ("reputation.young_days", a.young_days != b.young_days),
            ("reputation.account_bounce", a.account_bounce != b.account_bounce),
            ("reputation.account_complaint", a.account_complaint != b.account_complaint),
            ("reputation.account_least_recipients", a.account_least_recipients != b.account_least_recipients),
            ("reputation.young_day_warn_bounces", a.ceilings_day.warn_bounces != b.ceilings_day.warn_bounces),
            ("reputation.young_day_pause_bounces", a.ceilings_day.pause_bounces != b.ceilings_day.pause_bounces),
            ("reputation.young_day_warn_complaints", a.ceilings_day.warn_complaints != b.ceilings_day.warn_complaints),
            (
                "reputation.young_day_pause_complaints",
                a.ceilings_day.pause_complaints != b.ceilings_day.pause_complaints,
            ),
            ("reputation.young_week_warn_bounces", a.ceilings_week.warn_bounces != b.ceilings_week.warn_bounces),
            ("reputation.young_week_pause_bounces", a.ceilings_week.pause_bounces != b.ceilings_week.pause_bounces),
            (
                "reputation.young_week_warn_complaints",
                a.ceilings_week.warn_complaints != b.ceilings_week.warn_complaints,
            ),
            (
                "reputation.young_week_pause_complaints",
                a.ceilings_week.pause_complaints != b.ceilings_week.pause_complaints,
            ),
            ("reputation.transactional_warn_bounce", a.transactional.warn_bounce != b.transactional.warn_bounce),
            (
                "reputation.transactional_warn_complaint",
                a.transactional.warn_complaint != b.transactional.warn_complaint,
            ),
            ("reputation.transactional_pause_bounce", a.transactional.pause_bounce != b.transactional.pause_bounce),
            (
                "reputation.transactional_pause_complaint",
                a.transactional.pause_complaint != b.transactional.pause_complaint,
            ),
            ("reputation.bulk_warn_bounce", a.bulk.warn_bounce != b.bulk.warn_bounce),
            ("reputation.bulk_warn_complaint", a.bulk.warn_complaint != b.bulk.warn_complaint),
            ("reputation.bulk_pause_bounce", a.bulk.pause_bounce != b.bulk.pause_bounce),
            ("reputation.bulk_pause_complaint", a.bulk.pause_complaint != b.bulk.pause_complaint),
            ("reputation.marketing_warn_bounce", a.marketing.warn_bounce != b.marketing.warn_bounce),
            ("reputation.marketing_warn_complaint", a.marketing.warn_complaint != b.marketing.warn_complaint),
            ("reputation.marketing_pause_bounce", a.marketing.pause_bounce != b.marketing.pause_bounce),
            ("reputation.marketing_pause_complaint", a.marketing.pause_complaint != b.marketing.pause_complaint),
        ];
        keys.into_iter().filter_map(|(key, differs)| differs.then_some(key))
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
            store,
            audit,
            events,
            reputation: _,
            watch,
            exposure,
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
            max_24_hour_send,
            quota_reserve_percent,
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
        let notify = differing!(
            notify,
            new.notify,
            Notify,
            "notify.",
            from,
            configuration_set,
            operator,
            mails_per_hour,
            announcements,
            webhook_url,
            webhook_secret_file,
            webhook_seconds,
            webhook_private,
        );
        let store = differing!(store, new.store, Store, "store.", cache_bytes);
        let audit = differing!(audit, new.audit, Audit, "audit.", days);
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
            domains_per_day,
        );
        let watch = differing!(
            watch,
            new.watch,
            Watch,
            "watch.",
            stolen_credentials,
            first_time_percent,
            usual_first_time_percent,
            first_time_least_recipients,
            network_days,
            jump_times,
            jump_least_recipients,
            again_hours,
            volume_times,
            volume_least_recipients,
            credentials,
            memory_bytes,
            filter_bytes,
            waiting_recipients,
            flush_seconds,
        );

        let exposure = differing!(
            exposure,
            new.exposure,
            Exposure,
            "exposure.",
            start_recipients,
            floor_recipients,
            open_recipients,
            horizon_seconds,
            settled_days,
            settled_recipients,
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
            .chain(store)
            .chain(audit)
            .chain(events)
            .chain(watch)
            .chain(exposure)
            .chain(suppression)
            .chain(admin)
            .chain(log)
            .collect()
    }
}
