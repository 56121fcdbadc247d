//! A histogram of durations whose buckets grow by an eighth of a power of two.

use std::time::Duration;

const PER_OCTAVE: u64 = 8;
const BUCKETS: usize = 45 * PER_OCTAVE as usize;

/// Durations from 1 ns to hours, each known to a tenth.
#[derive(Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], longest: Duration::ZERO }
    }
}

fn bucket(duration: Duration) -> usize {
    let ns = (duration.as_nanos() as f64).max(1.0);
    ((ns.log2() * PER_OCTAVE as f64) as usize).min(BUCKETS - 1)
}

/// The upper bound of a bucket.
fn bound(bucket: usize) -> Duration {
    Duration::from_nanos(((bucket + 1) as f64 / PER_OCTAVE as f64).exp2() as u64)
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, duration: Duration) {
        self.buckets[bucket(duration)] += 1;
        self.longest = self.longest.max(duration);
    }

    /// Counts all of another.
    pub fn add(&mut self, other: &Self) {
        for (mine, others) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += others;
        }
        self.longest = self.longest.max(other.longest);
    }

    /// The longest counted.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The duration that a share of all does not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = (share * self.buckets.iter().sum::<u64>() as f64).ceil() as u64;
        let mut seen = 0;
        for (nth, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= wanted.max(1) {
                return bound(nth).min(self.longest);
            }
        }
        self.longest
    }

    /// For each bucket that holds anything: its bound, and the share of durations above it.
    pub fn tail(&self) -> Vec<(Duration, f64)> {
        let all = self.buckets.iter().sum::<u64>() as f64;
        let mut above = all;
        let mut tail = Vec::new();
        for (nth, n) in self.buckets.iter().enumerate().filter(|(_, n)| **n > 0) {
            above -= *n as f64;
            tail.push((bound(nth).min(self.longest), above / all));
        }
        tail
    }

    /// As text without spaces.
    pub fn encode(&self) -> String {
        let buckets: Vec<String> = self
            .buckets
            .iter()
            .enumerate()
            .filter(|(_, n)| **n > 0)
            .map(|(nth, n)| format!("{nth}:{n}"))
            .collect();
        format!("{};{}", self.longest.as_nanos(), buckets.join(","))
    }

    /// What [`Self::encode`] wrote.
    pub fn decode(text: &str) -> Option<Self> {
        let (longest, buckets) = text.split_once(';')?;
        let mut histogram =
            Self { longest: Duration::from_nanos(longest.parse().ok()?), ..Self::default() };
        for pair in buckets.split(',').filter(|pair| !pair.is_empty()) {
            let (nth, n) = pair.split_once(':')?;
            *histogram.buckets.get_mut(nth.parse::<usize>().ok()?)? += n.parse::<u64>().ok()?;
        }
        Some(histogram)
    }
}
