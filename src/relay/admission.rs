//! Admission: who may begin a conversation, decided before the greeting.
//!
//! One ordered list of rungs ([`LADDER`]), each with a name for the log and a reply of its own, all
//! 4xx: a client that is turned away here comes back. What a rung counts is held by the
//! `Admission` and given back when that is dropped, however the connection ends.
//!
//! IPv4 addresses count one by one, IPv6 addresses by their /64, since that is what one customer
//! of an access provider has at the least.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::memory::Memory;
use super::{Limits, Standing};
use crate::mail::TenantId;
use crate::smtp::Refusal;

/// The rungs in the order they are climbed: what concerns everybody first, what concerns one
/// address last, so that a refusal names the widest cause.
pub const LADDER: [Rung; 5] = [Rung::Draining, Rung::Store, Rung::Memory, Rung::Connections, Rung::Address];

/// One reason to turn a connection away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rung {
    /// We are shutting down.
    Draining,
    /// The store has stopped.
    Store,
    /// `limits.memory_bytes` is used up.
    Memory,
    /// `limits.connections`.
    Connections,
    /// `limits.connections_per_ip`.
    Address,
}

impl Rung {
    /// Its name in the log and the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Store => "store",
            Self::Memory => "memory",
            Self::Connections => "connections",
            Self::Address => "connections_per_ip",
        }
    }

    /// What the client hears.
    pub fn refusal(self) -> Refusal {
        let (enhanced, text) = match self {
            Self::Draining => ((3, 2), "This relay is shutting down; try again in a minute"),
            Self::Store => ((3, 0), "This relay cannot reach its store; try again later"),
            Self::Memory => ((3, 1), "This relay is short of memory; try again in a minute"),
            Self::Connections => ((3, 2), "Too many connections (limits.connections); try again in a minute"),
            Self::Address => ((7, 0), "Too many connections from your address (limits.connections_per_ip)"),
        };
        Refusal::temporary(421, enhanced, text).and_close()
    }
}

/// What is counted, for all listeners together.
#[derive(Debug)]
pub(super) struct Gate {
    connections: Arc<Tally<()>>,
    addresses: Arc<Tally<IpAddr>>,
    tenants: Arc<Tally<TenantId>>,
    most: Mutex<Most>,
}

/// How many there may be.
#[derive(Clone, Copy, Debug)]
struct Most {
    connections: usize,
    per_address: usize,
    per_tenant: usize,
}

/// The right to be connected; dropping it gives the places back.
#[derive(Debug)]
pub(super) struct Admission {
    _connection: Place<()>,
    _address: Place<IpAddr>,
}

impl Gate {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            connections: Arc::default(),
            addresses: Arc::default(),
            tenants: Arc::default(),
            most: Mutex::new(Most::of(limits)),
        }
    }

    /// From now on these are the bounds. Who is in stays, whatever they are.
    pub(super) fn resize(&self, limits: &Limits) {
        *self.most.lock().unwrap_or_else(PoisonError::into_inner) = Most::of(limits);
    }

    fn most(&self) -> Most {
        *self.most.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Climbs the ladder; the first rung that does not hold is the answer.
    pub(super) fn admit(&self, standing: Standing, memory: &Memory, peer: IpAddr) -> Result<Admission, Rung> {
        let most = self.most();
        let mut connection = None;
        let mut address = None;
        for rung in LADDER {
            let holds = match rung {
                Rung::Draining => !standing.draining,
                Rung::Store => standing.store_available,
                Rung::Memory => memory.has_room(),
                Rung::Connections => {
                    connection = self.connections.take((), most.connections);
                    connection.is_some()
                }
                Rung::Address => {
                    address = self.addresses.take(network_of(peer), most.per_address);
                    address.is_some()
                }
            };
            if !holds {
                return Err(rung);
            }
        }
        match (connection, address) {
            (Some(connection), Some(address)) => Ok(Admission { _connection: connection, _address: address }),
            // The ladder has both rungs.
            (None, _) => Err(Rung::Connections),
            (_, None) => Err(Rung::Address),
        }
    }

    /// A place among the tenant's connections; `None` when they are all taken.
    pub(super) fn tenant(&self, tenant: &TenantId) -> Option<Place<TenantId>> {
        self.tenants.take(tenant.clone(), self.most().per_tenant)
    }
}

impl Most {
    fn of(limits: &Limits) -> Self {
        Self {
            connections: limits.connections,
            per_address: limits.connections_per_ip,
            per_tenant: limits.connections_per_tenant,
        }
    }
}

/// How many places each key has taken. Keys without places are not kept.
#[derive(Debug)]
pub(super) struct Tally<K: Eq + Hash>(Mutex<HashMap<K, usize>>);

/// One place of a [`Tally`], given back on drop.
#[derive(Debug)]
pub(super) struct Place<K: Eq + Hash> {
    tally: Arc<Tally<K>>,
    key: K,
}

impl<K: Eq + Hash> Default for Tally<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> Tally<K> {
    /// A place for `key`, unless it has `most` already.
    pub(super) fn take(self: &Arc<Self>, key: K, most: usize) -> Option<Place<K>> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = places.entry(key.clone()).or_insert(0);
        if *taken >= most {
            if *taken == 0 {
                places.remove(&key);
            }
            return None;
        }
        *taken += 1;
        Some(Place { tally: Arc::clone(self), key })
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut places = self.tally.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = places.get_mut(&self.key) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                places.remove(&self.key);
            }
        }
    }
}

/// What is counted for a peer: its IPv4 address, or the /64 its IPv6 address lies in. An
/// IPv4-mapped address (RFC 4291 2.5.5.2) is the IPv4 address.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(connections: usize, per_ip: usize) -> (Gate, Memory) {
        let limits = Limits { connections, connections_per_ip: per_ip, ..Limits::default() };
        (Gate::new(&limits), Memory::new(&limits))
    }

    const WELL: Standing = Standing { draining: false, store_available: true };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_widest_cause_is_named_first() {
        let (gate, memory) = gate(0, 0);
        let all = [
            (Standing { draining: true, store_available: false }, Rung::Draining),
            (Standing { draining: false, store_available: false }, Rung::Store),
            (WELL, Rung::Connections),
        ];
        for (standing, rung) in all {
            assert_eq!(gate.admit(standing, &memory, ip("192.0.2.1")).unwrap_err(), rung);
        }
    }

    #[test]
    fn places_come_back_when_the_admission_is_dropped() {
        let (gate, memory) = gate(2, 2);
        let first = gate.admit(WELL, &memory, ip("192.0.2.1")).unwrap();
        let _second = gate.admit(WELL, &memory, ip("192.0.2.1")).unwrap();
        assert_eq!(gate.admit(WELL, &memory, ip("192.0.2.2")).unwrap_err(), Rung::Connections);
        drop(first);
        assert!(gate.admit(WELL, &memory, ip("192.0.2.2")).is_ok());
    }

    #[test]
    fn lowered_bounds_hold_for_who_comes_next() {
        let (gate, memory) = gate(9, 9);
        let held: Vec<_> = (0..3).map(|_| gate.admit(WELL, &memory, ip("192.0.2.1")).unwrap()).collect();
        gate.resize(&Limits { connections: 2, connections_per_ip: 9, ..Limits::default() });
        assert_eq!(gate.admit(WELL, &memory, ip("192.0.2.2")).unwrap_err(), Rung::Connections);
        gate.resize(&Limits { connections: 9, connections_per_ip: 3, ..Limits::default() });
        assert_eq!(gate.admit(WELL, &memory, ip("192.0.2.1")).unwrap_err(), Rung::Address);
        drop(held);
        assert!(gate.admit(WELL, &memory, ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn a_refusal_at_a_later_rung_gives_back_what_earlier_ones_took() {
        let (gate, memory) = gate(2, 1);
        let _held = gate.admit(WELL, &memory, ip("192.0.2.1")).unwrap();
        for _ in 0..10 {
            assert_eq!(gate.admit(WELL, &memory, ip("192.0.2.1")).unwrap_err(), Rung::Address);
        }
        assert!(gate.admit(WELL, &memory, ip("192.0.2.2")).is_ok());
    }

    #[test]
    fn ipv6_counts_by_its_64_and_mapped_addresses_as_ipv4() {
        let cases = [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ];
        for (a, b, same) in cases {
            assert_eq!(network_of(ip(a)) == network_of(ip(b)), same, "{a} {b}");
        }
    }

    #[test]
    fn keys_without_places_are_forgotten() {
        let (gate, _) = gate(9, 9);
        let acme = TenantId::parse("acme").unwrap();
        let place = gate.tenant(&acme).unwrap();
        assert_eq!(gate.tenants.0.lock().unwrap().len(), 1);
        drop(place);
        assert_eq!(gate.tenants.0.lock().unwrap().len(), 0);
    }

    #[test]
    fn every_rung_is_temporary_and_closes() {
        for rung in LADDER {
            let refusal = rung.refusal();
            assert_eq!(refusal.reply().code(), 421, "{rung:?}");
            assert!(refusal.closes(), "{rung:?}");
        }
    }
}
