//! Rules of the priority classes.

use std::net::IpAddr;

use super::Place;
use crate::{Better, Claimant, Number, Priority, PrioritySource};

const MOST_SOURCES: usize = 16;
const MOST_VALUES: usize = 256;
const MOST_CLAIMANTS: usize = 64;

pub(super) fn check(priority: &Priority, at: &mut Place<'_>) {
    let sources = priority.from.len();
    if sources > MOST_SOURCES {
        at.field("from").refuse(format!("{sources} sources are too many: write at most {MOST_SOURCES}"));
    }
    for (i, source) in priority.from.iter().enumerate() {
        let named = [source.header.is_some(), source.jwt_claim.is_some(), source.service_tier];
        if named.into_iter().filter(|named| *named).count() != 1 {
            let message = "a class comes from one thing: write either header, jwtClaim or serviceTier";
            at.field("from").item(i).refuse(message);
        }
        if let Some(number) = &source.number {
            check_number(number, source, &mut at.field("from").item(i).field("number"));
        }
        if source.map.len() > MOST_VALUES {
            let message = format!("{} values are too many: write at most {MOST_VALUES}", source.map.len());
            at.field("from").item(i).field("map").refuse(message);
        }
    }
    if priority.reserved_high.is_some_and(|share| share.get() >= 1.0) {
        let message = "1 leaves medium nothing while a tier is tripped: write a share below 1, such as 0.2";
        at.field("reservedHigh").refuse(message);
    }
    let claimants = priority.high_allowed_from.len();
    if claimants > MOST_CLAIMANTS {
        let message = format!("{claimants} claimants are too many: write at most {MOST_CLAIMANTS}");
        at.field("highAllowedFrom").refuse(message);
    }
    for (i, claimant) in priority.high_allowed_from.iter().enumerate() {
        check_claimant(claimant, &mut at.field("highAllowedFrom").item(i));
    }
}

fn check_number(number: &Number, source: &PrioritySource, at: &mut Place<'_>) {
    if !source.map.is_empty() {
        at.refuse("values are numbers or names: write either number or map");
    }
    let Some(high) = number.high else { return };
    let ordered = match number.better {
        Better::Lower => high <= number.medium,
        Better::Higher => high >= number.medium,
    };
    if !ordered {
        let message = format!("{high} is worse than {}, that of medium: write a better one", number.medium);
        at.field("high").refuse(message);
    }
}

fn check_claimant(claimant: &Claimant, at: &mut Place<'_>) {
    if let (Some(value), None) = (&claimant.value, &claimant.header) {
        at.field("value").refuse(format!("{value:?} without header: write the header that carries it"));
    }
    match &claimant.cidr {
        None if claimant.header.is_none() => at.refuse("nobody is named: write cidr, header or both"),
        Some(cidr) if parse_cidr(cidr).is_none() => {
            let message = format!("{cidr:?} is not an address block: write one such as \"10.0.0.0/8\"");
            at.field("cidr").refuse(message);
        }
        _ => {}
    }
}

pub(crate) fn parse_cidr(cidr: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = cidr.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}
