//! How long to wait before the next try.
//!
//! Pure: the randomness is handed in as a fraction, so that whoever waits also chooses its source.

use std::time::Duration;

/// The wait before try number `attempt` (the first retry is 0): `base` doubled each time, never
/// over `cap`, of which the upper half is jitter. `fraction` is from `0.0..1.0`; anything else
/// is taken as the nearer end. So many processes that failed together do not come back together,
/// and none comes back at once.
pub fn backoff(attempt: u32, base: Duration, cap: Duration, fraction: f64) -> Duration {
    let doubled = 2_u32.checked_pow(attempt).and_then(|factor| base.checked_mul(factor));
    let ceiling = doubled.map_or(cap, |wait| wait.min(cap));
    let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
    ceiling / 2 + (ceiling / 2).mul_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(200);
    const CAP: Duration = Duration::from_secs(30);

    #[test]
    fn waits_double_up_to_the_cap() {
        let waits: Vec<u128> = (0..9).map(|attempt| backoff(attempt, BASE, CAP, 0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 15000]);
        assert_eq!(backoff(u32::MAX, BASE, CAP, 0.0), CAP / 2);
        assert_eq!(backoff(20, Duration::MAX, CAP, 0.0), CAP / 2);
    }

    #[test]
    fn jitter_fills_the_upper_half() {
        assert_eq!(backoff(0, BASE, CAP, 0.5), Duration::from_millis(150));
        assert_eq!(backoff(0, BASE, CAP, 1.0), BASE);
        assert_eq!(backoff(40, BASE, CAP, 7.0), CAP);
        assert_eq!(backoff(0, BASE, CAP, -1.0), BASE / 2);
        assert_eq!(backoff(0, BASE, CAP, f64::NAN), BASE / 2);
    }
}
