//! What clients do after a refusal, and how long they wait for an answer.

use std::time::Duration;

use super::workload::Behaviour;
use crate::random::Random;

/// A client without a first token after this time goes away for good.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often an obedient client comes again.
const OBEDIENT_RETRIES: u32 = 3;
/// An obedient client that is told to wait longer gives up instead, as `OpenAI`'s does.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// First and longest backoff of an obedient client that was told nothing: those of `OpenAI`'s client.
const BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(8);
const HAMMER_RETRIES: u32 = 30;
const HAMMER_PAUSE: Duration = Duration::from_millis(300);

/// What a refused client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The same request after this time.
    ComesAgain(Duration),
    /// Nothing more.
    Leaves,
}

/// What a client does after its refusal number `attempt`, counted from 0.
pub fn next(behaviour: Behaviour, attempt: u32, told: Option<Duration>, random: &mut Random) -> Next {
    match (behaviour, told) {
        (Behaviour::Hammers, _) if attempt < HAMMER_RETRIES => {
            Next::ComesAgain(HAMMER_PAUSE.mul_f64(0.5 + random.uniform()))
        }
        (Behaviour::Obedient, Some(told)) if attempt < OBEDIENT_RETRIES && told <= LONGEST_WAIT => {
            Next::ComesAgain(told)
        }
        (Behaviour::Obedient, None) if attempt < OBEDIENT_RETRIES => {
            let backoff = (BACKOFF * 2_u32.pow(attempt)).min(LONGEST_BACKOFF);
            Next::ComesAgain(backoff.mul_f64(1.0 - 0.25 * random.uniform()))
        }
        _ => Next::Leaves,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_obedient_client_waits_exactly_as_told_and_not_for_ever() {
        let mut random = Random::new(1);
        let told = Some(Duration::from_secs(7));
        let mut next = |attempt, told| next(Behaviour::Obedient, attempt, told, &mut random);
        assert_eq!(next(0, told), Next::ComesAgain(Duration::from_secs(7)));
        assert_eq!(next(OBEDIENT_RETRIES, told), Next::Leaves);
        assert_eq!(next(0, Some(Duration::from_mins(2))), Next::Leaves);
    }

    #[test]
    fn a_client_that_hammers_comes_sooner_than_told_and_one_that_gives_up_never() {
        let mut random = Random::new(1);
        let told = Some(Duration::from_secs(7));
        let hammers = next(Behaviour::Hammers, 5, told, &mut random);
        assert!(matches!(hammers, Next::ComesAgain(pause) if pause < Duration::from_secs(1)));
        assert_eq!(next(Behaviour::GivesUp, 0, told, &mut random), Next::Leaves);
    }
}
