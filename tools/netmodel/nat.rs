//! A network address translator: which outer address stands for an inner one, and for how long.
//!
//! An inner address is whatever the caller knows a sender by; an outer one is a number that is
//! never used again, which the caller turns into a port or a socket. What comes in for a binding
//! that is gone is dropped, as it is by a NAT.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::random::Stream;

/// How a NAT forgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatRules {
    /// Silence of the inner side after which a binding is forgotten, in ms (RFC 4787 asks for two
    /// minutes; 30 s are common). `None`: never.
    pub idle_ms: Option<u64>,
    /// Time after which a binding is replaced though it is used, in ms, on average: the NAT was
    /// restarted, or the phone has another network. `None`: never.
    pub rebind_every_ms: Option<u64>,
}

impl NatRules {
    /// Whether these rules can be followed.
    ///
    /// # Errors
    /// Names the value that makes no sense.
    pub fn check(&self) -> Result<(), String> {
        let times = [("nat.idle_ms", self.idle_ms), ("nat.rebind_every_ms", self.rebind_every_ms)];
        match times.iter().find(|(_, ms)| *ms == Some(0)) {
            Some((name, _)) => Err(format!("{name} is 0; it must be 1 or more, or left out")),
            None => Ok(()),
        }
    }
}

/// An outer address; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Binding(pub u64);

/// What a packet from inside leaves by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outbound {
    /// Its outer address.
    pub binding: Binding,
    /// Whether that was made for this packet.
    pub is_new: bool,
    /// The one that it replaces, if there was one.
    pub replaces: Option<Binding>,
}

/// What a NAT has done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NatCounts {
    /// Bindings made.
    pub bindings: u64,
    /// Bindings forgotten for silence.
    pub expired: u64,
    /// Bindings replaced while in use.
    pub rebound: u64,
    /// Packets from outside for a binding that was gone.
    pub unbound: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bound {
    binding: Binding,
    /// When the inner side last said something.
    last: Duration,
    /// When it is replaced though in use.
    rebind_at: Option<Duration>,
}

/// A NAT for inner addresses `A`.
#[derive(Clone, Debug)]
pub struct Nat<A> {
    rules: NatRules,
    stream: Stream,
    bound: BTreeMap<A, Bound>,
    inner: BTreeMap<Binding, A>,
    made: u64,
    counts: NatCounts,
}

impl<A: Copy + Ord> Nat<A> {
    /// A NAT without bindings.
    pub fn new(rules: NatRules, seed: u64) -> Self {
        Self {
            rules,
            stream: Stream::of(seed, "nat"),
            bound: BTreeMap::new(),
            inner: BTreeMap::new(),
            made: 0,
            counts: NatCounts::default(),
        }
    }

    /// Other rules from now on; a moment at which a binding is replaced stays.
    pub fn set(&mut self, rules: NatRules) {
        self.rules = rules;
    }

    /// All inner addresses that are bound.
    pub fn inner(&self) -> Vec<A> {
        self.bound.keys().copied().collect()
    }

    /// A packet leaves.
    pub fn outbound(&mut self, now: Duration, inner: A) -> Outbound {
        let old = self.bound.get(&inner).copied();
        if let Some(bound) = old.filter(|bound| self.holds(bound, now)) {
            self.bound.insert(inner, Bound { last: now, ..bound });
            return Outbound { binding: bound.binding, is_new: false, replaces: None };
        }
        let replaces = old.map(|bound| {
            self.counts.rebound += u64::from(!self.is_idle(&bound, now));
            self.counts.expired += u64::from(self.is_idle(&bound, now));
            self.inner.remove(&bound.binding);
            bound.binding
        });
        let binding = self.bind(now, inner);
        Outbound { binding, is_new: true, replaces }
    }

    fn bind(&mut self, now: Duration, inner: A) -> Binding {
        self.made += 1;
        self.counts.bindings += 1;
        let binding = Binding(self.made);
        let rebind_at = self.rules.rebind_every_ms.map(|mean| now + self.stream.lasting(mean));
        self.bound.insert(inner, Bound { binding, last: now, rebind_at });
        self.inner.insert(binding, inner);
        binding
    }

    /// A packet comes for an outer address: the inner one, if it is still bound. It does not keep
    /// the binding alive (RFC 4787, REQ-6).
    pub fn inbound(&mut self, now: Duration, binding: Binding) -> Option<A> {
        let inner = self.inner.get(&binding).copied();
        let holds = inner.filter(|inner| self.holds(&self.bound[inner], now));
        self.counts.unbound += u64::from(holds.is_none());
        holds
    }

    /// The binding of an inner address is forgotten: its next packet leaves by another one.
    pub fn rebind(&mut self, inner: A) -> Option<Binding> {
        let bound = self.bound.remove(&inner)?;
        self.inner.remove(&bound.binding);
        self.counts.rebound += 1;
        Some(bound.binding)
    }

    /// Bindings that silence has ended by now; the caller may close what stands for them.
    pub fn sweep(&mut self, now: Duration) -> Vec<Binding> {
        let idle = |(_, bound): &(&A, &Bound)| self.is_idle(bound, now);
        let gone: Vec<A> = self.bound.iter().filter(idle).map(|(inner, _)| *inner).collect();
        gone.into_iter().filter_map(|inner| self.forget(inner)).collect()
    }

    fn forget(&mut self, inner: A) -> Option<Binding> {
        let bound = self.bound.remove(&inner)?;
        self.inner.remove(&bound.binding);
        self.counts.expired += 1;
        Some(bound.binding)
    }

    /// What it has done so far.
    pub fn counts(&self) -> NatCounts {
        self.counts
    }

    fn is_idle(&self, bound: &Bound, now: Duration) -> bool {
        let idle = self.rules.idle_ms.map(Duration::from_millis);
        idle.is_some_and(|idle| now.saturating_sub(bound.last) >= idle)
    }

    fn holds(&self, bound: &Bound, now: Duration) -> bool {
        !self.is_idle(bound, now) && bound.rebind_at.is_none_or(|at| now < at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn silence_ends_a_binding_and_answers_do_not_keep_it() {
        let rules = NatRules { idle_ms: Some(30_000), rebind_every_ms: None };
        let mut nat = Nat::new(rules, 1);
        let first = nat.outbound(s(0), 'a');
        assert!(first.is_new && !nat.outbound(s(20), 'a').is_new);
        assert_eq!(nat.inbound(s(49), first.binding), Some('a'));
        assert_eq!(nat.inbound(s(50), first.binding), None);
        let second = nat.outbound(s(51), 'a');
        assert_eq!(second.replaces, Some(first.binding));
        assert_ne!(second.binding, first.binding);
        assert_eq!(nat.inbound(s(51), first.binding), None);
        assert_eq!(nat.sweep(s(80)), []);
        assert_eq!(nat.sweep(s(81)), [second.binding]);
        let counts = nat.counts();
        assert_eq!((counts.bindings, counts.expired, counts.unbound), (2, 2, 2));
    }

    #[test]
    fn a_rebinding_moves_one_sender_and_no_other() {
        let mut nat = Nat::new(NatRules::default(), 1);
        let (a, b) = (nat.outbound(s(0), 'a').binding, nat.outbound(s(0), 'b').binding);
        assert_eq!(nat.rebind('a'), Some(a));
        assert_eq!((nat.inbound(s(1), a), nat.inbound(s(1), b)), (None, Some('b')));
        assert!(nat.outbound(s(1), 'a').is_new && !nat.outbound(s(1), 'b').is_new);
        assert_eq!((nat.counts().rebound, nat.counts().bindings), (1, 3));
    }

    #[test]
    fn bindings_in_use_are_replaced_as_often_as_said() {
        let rules = NatRules { idle_ms: None, rebind_every_ms: Some(10_000) };
        let mut nat = Nat::new(rules, 1);
        for second in 0..10_000 {
            nat.outbound(s(second), 'a');
        }
        assert!((800..1_100).contains(&nat.counts().rebound), "{:?}", nat.counts());
    }
}
