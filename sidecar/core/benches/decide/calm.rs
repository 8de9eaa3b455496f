//! Rounds in which the machine was ours.

/// What the rounds gave that nobody stole time from, and how many were discarded.
pub(crate) struct Calm<T> {
    pub(crate) rounds: Vec<T>,
    pub(crate) discarded: usize,
}

/// Runs rounds until so many of them saw no stolen time, at most four times as many.
pub(crate) fn rounds<T>(wanted: usize, mut round: impl FnMut() -> T) -> Calm<T> {
    let mut calm = Calm { rounds: Vec::new(), discarded: 0 };
    while calm.rounds.len() < wanted && calm.rounds.len() + calm.discarded < 4 * wanted {
        let before = stolen();
        let result = round();
        if stolen() == before {
            calm.rounds.push(result);
        } else {
            calm.discarded += 1;
        }
    }
    calm
}

/// Time that the hypervisor gave to others while this machine had work, in ticks; the eighth number of `/proc/stat`.
fn stolen() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.split_whitespace().nth(8).and_then(|ticks| ticks.parse().ok()).unwrap_or_default()
}
