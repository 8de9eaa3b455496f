//! Which requests a limit is for.

use tidegate_policy::{self as policy, Match, Subject};

use crate::Facts;

/// All of them hold.
#[derive(Debug, Default)]
pub(crate) struct Conditions(Box<[Condition]>);

#[derive(Debug)]
struct Condition {
    of: Subject,
    is: Is,
}

#[derive(Debug)]
enum Is {
    In(Box<[Value]>),
    NotIn(Box<[Value]>),
    Exists,
    DoesNotExist,
}

#[derive(Debug)]
enum Value {
    Exactly(Box<[u8]>),
    /// All that begin so.
    Prefix(Box<[u8]>),
}

impl Conditions {
    pub(crate) fn new(conditions: &[policy::Condition]) -> Self {
        Self(conditions.iter().map(Condition::new).collect())
    }

    // Kept out of the way of requests whose limits have no conditions.
    #[inline(never)]
    pub(crate) fn hold(&self, facts: &Facts<'_>) -> bool {
        self.0.iter().all(|condition| condition.holds(facts))
    }
}

impl Condition {
    fn new(condition: &policy::Condition) -> Self {
        let prefixes = condition.of == Subject::Path;
        let values =
            |values: &[String]| values.iter().map(|value| Value::new(value, prefixes)).collect::<Box<[_]>>();
        let is = match &condition.is {
            Match::In(all) => Is::In(values(all)),
            Match::NotIn(all) => Is::NotIn(values(all)),
            Match::Exists => Is::Exists,
            Match::DoesNotExist => Is::DoesNotExist,
        };
        Self { of: condition.of.clone(), is }
    }

    fn holds(&self, facts: &Facts<'_>) -> bool {
        match &self.of {
            Subject::Header(name) => self.is.met_by(facts.headers.get(name.as_str())),
            Subject::Path => self.is.met_by(Some(facts.path.as_bytes())),
            Subject::Method => self.is.met_by(Some(facts.method.as_bytes())),
            Subject::JwtClaim(claim) => {
                self.is.met_by(facts.claims.values(claim).iter().map(|value| value.as_bytes()))
            }
        }
    }
}

impl Is {
    fn met_by<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let mut values = values.into_iter();
        match self {
            Self::In(all) => values.any(|value| all.iter().any(|own| own.covers(value))),
            Self::NotIn(all) => !values.any(|value| all.iter().any(|own| own.covers(value))),
            Self::Exists => values.next().is_some(),
            Self::DoesNotExist => values.next().is_none(),
        }
    }
}

impl Value {
    fn new(value: &str, prefixes: bool) -> Self {
        match value.strip_suffix('*') {
            Some(prefix) if prefixes => Self::Prefix(prefix.as_bytes().into()),
            _ => Self::Exactly(value.as_bytes().into()),
        }
    }

    fn covers(&self, value: &[u8]) -> bool {
        match self {
            Self::Exactly(own) => **own == *value,
            Self::Prefix(own) => value.starts_with(own),
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use tidegate_policy::HeaderName;

    use super::*;
    use crate::testing::Request;

    fn holds(of: Subject, is: Match, request: &Request) -> bool {
        Conditions::new(&[policy::Condition { of, is }]).hold(&request.facts())
    }

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn conditions_hold_as_label_selectors_of_kubernetes_do() {
        let tier = || Subject::Header(HeaderName::new("x-tier").unwrap());
        let (gold, none) = (Request::from("10.0.0.1").with("x-tier", "gold"), Request::from("10.0.0.1"));
        for (is, of_gold, of_none) in [
            (Match::In(texts(&["silver", "gold"])), true, false),
            (Match::In(texts(&["Gold", "gold*"])), false, false),
            (Match::NotIn(texts(&["gold"])), false, true),
            (Match::NotIn(texts(&["silver"])), true, true),
            (Match::Exists, true, false),
            (Match::DoesNotExist, false, true),
        ] {
            assert_eq!(holds(tier(), is.clone(), &gold), of_gold, "{is:?}");
            assert_eq!(holds(tier(), is.clone(), &none), of_none, "{is:?}");
        }
    }

    #[test]
    fn of_a_claim_that_is_a_list_any_value_counts() {
        let groups = || Subject::JwtClaim("groups".to_owned());
        let request = Request::from("10.0.0.1").claiming("groups", &["a", "b"]);
        assert!(holds(groups(), Match::In(texts(&["b"])), &request));
        assert!(!holds(groups(), Match::NotIn(texts(&["b"])), &request));
        assert!(holds(groups(), Match::NotIn(texts(&["c"])), &request));
        assert!(holds(groups(), Match::Exists, &request));
        assert!(holds(groups(), Match::DoesNotExist, &Request::from("10.0.0.1")));
    }

    #[test]
    fn a_star_at_its_end_makes_a_path_stand_for_all_that_begin_so() {
        let request = Request::from("10.0.0.1");
        let path = request.facts().path.to_owned();
        let star = format!("{}*", &path[..1]);
        assert!(holds(Subject::Path, Match::In(vec![path.clone()]), &request));
        assert!(holds(Subject::Path, Match::In(vec![star.clone()]), &request));
        assert!(!holds(Subject::Path, Match::NotIn(vec![star]), &request));
        assert!(!holds(Subject::Path, Match::In(texts(&["/other*"])), &request));
        let method = request.facts().method.to_owned();
        assert!(holds(Subject::Method, Match::In(vec![method]), &request));
    }

    #[test]
    fn all_of_several_conditions_have_to_hold() {
        let condition = |of, is| policy::Condition { of, is };
        let both = Conditions::new(&[
            condition(Subject::Header(HeaderName::new("a").unwrap()), Match::Exists),
            condition(Subject::Header(HeaderName::new("b").unwrap()), Match::Exists),
        ]);
        assert!(both.hold(&Request::from("10.0.0.1").with("a", "1").with("b", "1").facts()));
        assert!(!both.hold(&Request::from("10.0.0.1").with("a", "1").facts()));
        assert!(Conditions::default().hold(&Request::from("10.0.0.1").facts()));
    }
}
