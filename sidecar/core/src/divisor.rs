//! Division by a number that stays the same.

/// Divides by multiplication with the reciprocal, which takes a quarter of the time of a division.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Divisor {
    divisor: u64,
    /// 2⁶⁴ ÷ divisor, rounded down.
    reciprocal: u64,
}

impl Divisor {
    /// Zero counts as one.
    pub(crate) fn new(divisor: u64) -> Self {
        let divisor = divisor.max(1);
        Self { divisor, reciprocal: u64::MAX / divisor }
    }

    pub(crate) fn get(self) -> u64 {
        self.divisor
    }

    /// Quotient and remainder.
    #[inline]
    pub(crate) fn divide(self, n: u64) -> (u64, u64) {
        // Never too large, and too small by two at most.
        let mut quotient = ((u128::from(n) * u128::from(self.reciprocal)) >> 64) as u64;
        let mut remainder = n - quotient * self.divisor;
        while remainder >= self.divisor {
            quotient += 1;
            remainder -= self.divisor;
        }
        (quotient, remainder)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_divides(n in any::<u64>(), divisor in 1..=u64::MAX, small in 1u64..1000) {
            for divisor in [divisor, small, 1, u64::MAX] {
                for n in [n, 0, u64::MAX, divisor, divisor - 1] {
                    prop_assert_eq!(Divisor::new(divisor).divide(n), (n / divisor, n % divisor));
                }
            }
        }
    }
}
