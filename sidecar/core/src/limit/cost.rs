//! What a request costs a rule.

use tidegate_policy::Cost;

use crate::Tokens;

/// Weights are whole numbers of millionths.
const ONE: u64 = 1_000_000;

/// What is asked of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Price {
    /// One.
    Request,
    /// Millionths for each token.
    Tokens { input: u64, cached: u64, output: u64 },
}

impl Price {
    pub(crate) fn new(cost: Cost) -> Self {
        match cost {
            Cost::Requests => Self::Request,
            Cost::PromptTokens => Self::Tokens { input: ONE, cached: ONE, output: 0 },
            Cost::TotalTokens => Self::Tokens { input: ONE, cached: ONE, output: ONE },
            Cost::Tokens(weights) => {
                let millionths = |weight: tidegate_policy::Weight| (weight.get() * ONE as f64).round() as u64;
                Self::Tokens {
                    input: millionths(weights.input),
                    cached: millionths(weights.cached),
                    output: millionths(weights.output),
                }
            }
        }
    }

    /// What these tokens cost, rounded up.
    #[inline(never)]
    pub(crate) fn of(self, tokens: &Tokens) -> u32 {
        match self {
            Self::Request => 1,
            Self::Tokens { input, cached, output } => {
                let sum = input * u64::from(tokens.input);
                let sum = sum.saturating_add(cached * u64::from(tokens.cached));
                let sum = sum.saturating_add(output * u64::from(tokens.output));
                u32::try_from(sum.div_ceil(ONE)).unwrap_or(u32::MAX)
            }
        }
    }

    /// The same before the request: it costs something, whatever was estimated.
    #[inline]
    pub(crate) fn of_estimate(&self, tokens: &Tokens) -> u32 {
        if matches!(self, Self::Request) { 1 } else { self.of(tokens).max(1) }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidegate_policy::{TokenWeights, Weight};

    #[test]
    fn tokens_are_weighed_and_the_sum_is_rounded_up() {
        let weight = |value| Weight::new(value).unwrap();
        let weights = TokenWeights { input: weight(1.0), cached: weight(0.1), output: weight(4.0) };
        let tokens = Tokens { input: 100, cached: 11, output: 10 };
        assert_eq!(Price::new(Cost::Tokens(weights)).of(&tokens), 142);
        assert_eq!(Price::new(Cost::PromptTokens).of(&tokens), 111);
        assert_eq!(Price::new(Cost::TotalTokens).of(&tokens), 121);
        assert_eq!(Price::new(Cost::Requests).of(&tokens), 1);
    }

    #[test]
    fn a_request_without_an_estimate_is_not_free() {
        assert_eq!(Price::new(Cost::TotalTokens).of_estimate(&Tokens::default()), 1);
        assert_eq!(Price::new(Cost::TotalTokens).of(&Tokens::default()), 0);
    }

    proptest! {
        #[test]
        fn no_weight_and_no_number_of_tokens_overflows(
            weights in proptest::array::uniform3(0.0f64..=1000.0), tokens in proptest::array::uniform3(any::<u32>()),
        ) {
            let [input, cached, output] = weights.map(|weight| Weight::new(weight).unwrap());
            let price = Price::new(Cost::Tokens(TokenWeights { input, cached, output }));
            let tokens = Tokens { input: tokens[0], cached: tokens[1], output: tokens[2] };
            let exact = weights[0] * f64::from(tokens.input)
                + weights[1] * f64::from(tokens.cached)
                + weights[2] * f64::from(tokens.output);
            let got = f64::from(price.of(&tokens));
            prop_assert!(got >= exact.min(4.2e9) - 1e7 && got <= exact + 1e7, "{} for {}", got, exact);
        }
    }
}
