//! The class of a request.

use std::net::{IpAddr, Ipv6Addr};

use tidegate_policy::{Better, Claimant, Number, Priority, PriorityClass, PrioritySource};

use crate::Facts;

/// Priority of a policy, ready to be asked.
#[derive(Debug)]
pub(crate) struct Classifier {
    sources: Box<[Source]>,
    default: PriorityClass,
    claimants: Box<[Entitled]>,
    stripped: Box<[String]>,
}

#[derive(Debug)]
struct Source {
    from: From,
    values: Values,
}

/// What stands there for a class.
#[derive(Debug)]
enum Values {
    /// The names of the classes in any letter case.
    Names,
    These(Box<[(Box<[u8]>, PriorityClass)]>),
    Numbers(Number),
}

/// What OpenAI's service tiers stand for; `auto` leaves it to the server, and so gives no class.
/// <https://platform.openai.com/docs/api-reference/chat/create#chat_create-service_tier>
const SERVICE_TIERS: [(&str, PriorityClass); 3] =
    [("flex", PriorityClass::Low), ("default", PriorityClass::Medium), ("priority", PriorityClass::High)];

fn known((value, class): (&str, PriorityClass)) -> (Box<[u8]>, PriorityClass) {
    (value.as_bytes().into(), class)
}

/// Where a class is written.
#[derive(Debug)]
enum From {
    /// By whoever sends the request.
    Header(String),
    /// By whoever sends the request, as `service_tier` in its body.
    ServiceTier,
    /// By an issuer that is believed.
    Claim(Box<str>),
}

/// One who may claim high. All that is set has to match.
#[derive(Debug)]
struct Entitled {
    block: Option<Block>,
    header: Option<(String, Option<Box<[u8]>>)>,
}

/// Addresses as IPv6, those of IPv4 mapped into it.
#[derive(Debug, Clone, Copy)]
struct Block {
    network: u128,
    mask: u128,
}

impl Classifier {
    pub(crate) fn new(priority: &Priority) -> Self {
        let headers = priority.from.iter().filter_map(|source| source.header.as_ref());
        let headers = headers.filter(|_| priority.strip_headers);
        Self {
            stripped: headers.map(|name| name.as_str().to_owned()).collect(),
            sources: priority.from.iter().filter_map(Source::new).collect(),
            default: priority.default,
            claimants: priority.high_allowed_from.iter().filter_map(Entitled::new).collect(),
        }
    }

    /// The headers that the engine should not see.
    pub(crate) fn stripped(&self) -> &[String] {
        &self.stripped
    }

    /// The class that the first source gives. Anybody's header may lower it; one above the default is for those who may
    /// claim it, and a claim of anybody else is treated as no claim. What an issuer has written needs no further leave.
    pub(crate) fn classify(&self, facts: &Facts<'_>) -> PriorityClass {
        let claimed = self.sources.iter().find_map(|source| Some((source, source.class(facts)?)));
        match claimed {
            Some((Source { from: From::Header(_) | From::ServiceTier, .. }, class))
                if class > self.default && !self.claimants.iter().any(|c| c.matches(facts)) =>
            {
                self.default
            }
            Some((_, class)) => class,
            None => self.default,
        }
    }
}

impl Source {
    /// None of a source that names neither: it gives no class.
    fn new(source: &PrioritySource) -> Option<Self> {
        let from = match (&source.header, &source.jwt_claim) {
            (Some(header), _) => From::Header(header.as_str().to_owned()),
            (None, Some(claim)) => From::Claim(claim.as_str().into()),
            (None, None) if source.service_tier => From::ServiceTier,
            (None, None) => return None,
        };
        let values = match source.number {
            Some(number) => Values::Numbers(number),
            None if source.map.is_empty() && source.service_tier => {
                Values::These(SERVICE_TIERS.map(known).into())
            }
            None if source.map.is_empty() => Values::Names,
            None => {
                let values = source.map.iter().map(|(value, class)| (value.as_bytes().into(), *class));
                Values::These(values.collect())
            }
        };
        Some(Self { from, values })
    }

    /// Of several values of a claim the first that is known.
    fn class(&self, facts: &Facts<'_>) -> Option<PriorityClass> {
        match &self.from {
            From::Header(header) => self.named(facts.headers.get(header)?),
            From::ServiceTier => self.named(facts.service_tier?.as_bytes()),
            From::Claim(claim) => facts.claims.values(claim).iter().find_map(|v| self.named(v.as_bytes())),
        }
    }

    fn named(&self, value: &[u8]) -> Option<PriorityClass> {
        match &self.values {
            Values::Names => by_name(value),
            Values::These(values) => {
                values.iter().find(|(known, _)| **known == *value).map(|(_, class)| *class)
            }
            Values::Numbers(number) => by_number(*number, value),
        }
    }
}

/// A whole number in decimal; anything else gives no class.
fn by_number(number: Number, value: &[u8]) -> Option<PriorityClass> {
    let value: i64 = str::from_utf8(value).ok()?.parse().ok()?;
    let reaches = |bound: i32| match number.better {
        Better::Lower => value <= i64::from(bound),
        Better::Higher => value >= i64::from(bound),
    };
    Some(match number.high {
        Some(high) if reaches(high) => PriorityClass::High,
        _ if reaches(number.medium) => PriorityClass::Medium,
        _ => PriorityClass::Low,
    })
}

/// The names in any letter case. Four letters at once: each differs from its other case in one bit, and nothing else
/// becomes a letter by it.
fn by_name(value: &[u8]) -> Option<PriorityClass> {
    const fn four(letters: [u8; 4]) -> u32 {
        u32::from_le_bytes(letters) | 0x2020_2020
    }
    const MEDI: u32 = four(*b"medi");
    const DIUM: u32 = four(*b"dium");
    const HIGH: u32 = four(*b"high");
    let (first, last) = match (value.first_chunk(), value.last_chunk()) {
        (Some(first), Some(last)) => (four(*first), four(*last)),
        _ => return value.eq_ignore_ascii_case(b"low").then_some(PriorityClass::Low),
    };
    match (value.len(), first, last) {
        (6, MEDI, DIUM) => Some(PriorityClass::Medium),
        (4, HIGH, _) => Some(PriorityClass::High),
        _ => None,
    }
}

impl Entitled {
    /// None of a claimant that names nobody, or an address block that is none: it entitles nobody.
    fn new(claimant: &Claimant) -> Option<Self> {
        let block = match &claimant.cidr {
            Some(_) => Some(Block::new(claimant.block()?)),
            None => None,
        };
        let value = claimant.value.as_ref().map(|value| value.as_bytes().into());
        let header = claimant.header.as_ref().map(|name| (name.as_str().to_owned(), value));
        (block.is_some() || header.is_some()).then_some(Self { block, header })
    }

    fn matches(&self, facts: &Facts<'_>) -> bool {
        self.block.is_none_or(|block| block.contains(facts.client))
            && self.header.as_ref().is_none_or(|(name, expected)| {
                let value = facts.headers.get(name);
                value.is_some_and(|value| expected.as_ref().is_none_or(|expected| **expected == *value))
            })
    }
}

impl Block {
    fn new((address, length): (IpAddr, u8)) -> Self {
        let bits = u32::from(length) + if address.is_ipv4() { 96 } else { 0 };
        let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
        Self { network: number(address) & mask, mask }
    }

    fn contains(self, address: IpAddr) -> bool {
        number(address) & self.mask == self.network
    }
}

fn number(address: IpAddr) -> u128 {
    let v6: Ipv6Addr = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    v6.to_bits()
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::testing::Request;
    use PriorityClass::{High, Low, Medium};
    use tidegate_policy::HeaderName;

    fn claimant(cidr: Option<&str>, header: Option<(&str, Option<&str>)>) -> Claimant {
        Claimant {
            cidr: cidr.map(str::to_owned),
            header: header.map(|(name, _)| HeaderName::new(name).unwrap()),
            value: header.and_then(|(_, value)| value.map(str::to_owned)),
        }
    }

    fn classify(priority: &Priority, request: &Request) -> PriorityClass {
        Classifier::new(priority).classify(&request.facts())
    }

    #[test]
    fn a_class_is_read_in_any_letter_case_and_anything_else_is_the_default() {
        let priority =
            Priority { high_allowed_from: vec![claimant(Some("0.0.0.0/0"), None)], ..Priority::default() };
        for (value, class) in
            [("LOW", Low), ("Medium", Medium), ("hIgH", High), ("urgent", Medium), ("", Medium)]
        {
            assert_eq!(classify(&priority, &Request::priority(value)), class, "{value}");
        }
        assert_eq!(classify(&priority, &Request::from("10.0.0.1")), Medium);
    }

    #[test]
    fn the_first_source_that_gives_a_class_wins() {
        let tier = PrioritySource {
            header: HeaderName::new("x-tier").ok(),
            number: None,
            jwt_claim: None,
            service_tier: false,
            map: [("silver".to_owned(), Low), ("gold".to_owned(), Medium)].into(),
        };
        let mut priority = Priority::default();
        priority.from.insert(0, tier);
        let request = Request::priority("low").with("x-tier", "gold");
        assert_eq!(classify(&priority, &request), Medium);
        assert_eq!(classify(&priority, &Request::priority("low").with("x-tier", "Gold")), Low);
    }

    #[test]
    fn a_number_is_better_when_it_is_lower_or_higher_as_the_policy_says() {
        let classes = |better, high, medium, values: &[&str]| {
            let number = Some(Number { better, high, medium });
            let header = HeaderName::new("x-request-priority").ok();
            let source = PrioritySource { header, number, ..PrioritySource::default() };
            let priority = Priority {
                from: vec![source],
                high_allowed_from: vec![claimant(Some("0.0.0.0/0"), None)],
                ..Priority::default()
            };
            let request = |value: &&str| Request::from("10.0.0.1").with("x-request-priority", value);
            values.iter().map(|value| classify(&priority, &request(value))).collect::<Vec<_>>()
        };
        assert_eq!(
            classes(Better::Lower, Some(-1), 5, &["-9", "-1", "0", "5", "6", "+6", "9223372036854775807"]),
            [High, High, Medium, Medium, Low, Low, Low]
        );
        assert_eq!(
            classes(Better::Higher, Some(10), 0, &["11", "10", "9", "0", "-1"]),
            [High, High, Medium, Medium, Low]
        );
        assert_eq!(classes(Better::Lower, None, 0, &["-9", "1"]), [Medium, Low], "none is high");
        let default = [Medium; 5];
        assert_eq!(
            classes(Better::Lower, None, -5, &["", "x", "1.5", "9223372036854775808", "1 "]),
            default,
            "no number, no class"
        );
    }

    #[test]
    fn a_header_of_anybody_may_only_lower_the_class() {
        for default in [Low, Medium, High] {
            let priority = Priority { default, ..Priority::default() };
            for (value, class) in [("low", Low), ("medium", Medium), ("high", High)] {
                assert_eq!(classify(&priority, &Request::priority(value)), class.min(default), "{value}");
            }
        }
    }

    #[test]
    fn high_is_for_those_who_may_claim_it_and_nobody_else() {
        let mut priority = Priority::default();
        assert_eq!(classify(&priority, &Request::priority("high")), Medium, "nobody may by default");
        priority.high_allowed_from = vec![
            claimant(Some("10.1.0.0/16"), Some(("x-team", Some("search")))),
            claimant(Some("fd00::/8"), None),
        ];
        let claim = |client: &str, team: &str| {
            let request = Request::from(client).with("x-priority", "high").with("x-team", team);
            classify(&priority, &request)
        };
        assert_eq!(claim("10.1.2.3", "search"), High);
        assert_eq!(claim("::ffff:10.1.2.3", "search"), High);
        assert_eq!(claim("10.2.2.3", "search"), Medium);
        assert_eq!(claim("10.1.2.3", "ads"), Medium);
        assert_eq!(claim("fd12::1", "ads"), High);
        assert_eq!(claim("fe80::1", "search"), Medium);
    }

    #[test]
    fn a_service_tier_lowers_the_class_of_anybody_and_raises_that_of_those_who_may() {
        let source = PrioritySource { service_tier: true, ..PrioritySource::default() };
        let mut priority = Priority { from: vec![source], ..Priority::default() };
        let class = |priority: &Priority, tier| classify(priority, &Request::from("10.0.0.1").of_tier(tier));
        for (tier, expected) in
            [("flex", Low), ("default", Medium), ("auto", Medium), ("priority", Medium), ("Flex", Medium)]
        {
            assert_eq!(class(&priority, tier), expected, "{tier}");
        }
        assert_eq!(classify(&priority, &Request::from("10.0.0.1")), Medium);
        priority.high_allowed_from = vec![claimant(Some("10.0.0.0/8"), None)];
        assert_eq!(class(&priority, "priority"), High);
        priority.from[0].map = [("scale".to_owned(), High)].into();
        assert_eq!((class(&priority, "scale"), class(&priority, "flex")), (High, Medium), "a map of its own");
    }

    #[test]
    fn a_claim_of_a_believed_token_may_give_high_and_a_header_beside_it_not() {
        let mut priority = Priority::default();
        let map = [("platinum".to_owned(), High), ("silver".to_owned(), Low)].into();
        let jwt_claim = Some("tier".to_owned());
        priority.from.insert(0, PrioritySource { jwt_claim, map, ..PrioritySource::default() });
        let request = |tiers: &[&str]| Request::priority("high").claiming("tier", tiers);
        assert_eq!(classify(&priority, &request(&["platinum"])), High);
        assert_eq!(
            classify(&priority, &request(&["unknown", "silver"])),
            Low,
            "the first value that is known"
        );
        assert_eq!(classify(&priority, &request(&[])), Medium, "the header may not");
    }

    #[test]
    fn an_unknown_client_never_gets_high_from_a_block_that_is_none() {
        let nobody = vec![claimant(Some("10.0.0.0/99"), None), claimant(None, None)];
        let priority = Priority { high_allowed_from: nobody, ..Priority::default() };
        assert_eq!(classify(&priority, &Request::priority("high")), Medium);
    }
}
