//! Rules of the conditions of a limit.

use super::super::Place;
use crate::{Condition, Match, Subject};

const MOST_CONDITIONS: usize = 8;
const MOST_VALUES: usize = 64;

pub(super) fn check(when: &[Condition], at: &mut Place<'_>) {
    if when.len() > MOST_CONDITIONS {
        at.refuse(format!("{} conditions are too many: write at most {MOST_CONDITIONS}", when.len()));
    }
    for (i, condition) in when.iter().enumerate() {
        check_values(condition, &mut at.item(i));
        if when[..i].iter().any(|other| excludes(other, condition) || excludes(condition, other)) {
            let message = "it never holds together with one before it, so that the limit is for no request: write \
                           conditions that can hold together, or leave this one out";
            at.item(i).refuse(message);
        }
    }
}

fn check_values(condition: &Condition, at: &mut Place<'_>) {
    let always_there = matches!(condition.of, Subject::Path | Subject::Method);
    match &condition.is {
        Match::In(values) | Match::NotIn(values) if !(1..=MOST_VALUES).contains(&values.len()) => {
            at.field("is").refuse(format!("{} values: write 1 to {MOST_VALUES}", values.len()));
        }
        Match::Exists | Match::DoesNotExist if always_there => {
            at.field("is").refuse("every request has a path and a method: write in or notIn");
        }
        _ => {}
    }
}

/// Whether what passes one never passes the other. Of a claim that is a list several values are there at once.
fn excludes(one: &Condition, other: &Condition) -> bool {
    let single = match one.of {
        Subject::Header(_) | Subject::Method => true,
        // Of values that stand for others only the engine can say.
        Subject::JwtClaim(_) | Subject::Path => false,
    };
    one.of == other.of
        && match (&one.is, &other.is) {
            (Match::DoesNotExist, Match::In(_) | Match::Exists) => true,
            (Match::In(one), Match::In(other)) => single && !one.iter().any(|value| other.contains(value)),
            (Match::In(one), Match::NotIn(other)) => {
                (single || matches!(one[..], [_])) && one.iter().all(|value| other.contains(value))
            }
            _ => false,
        }
}
