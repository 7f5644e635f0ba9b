//! Quantities of Kubernetes, for example `500m`, `4Gi` or `1e3`, as exact numbers. Pure.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Longest text that is looked at.
const MAX_TEXT: usize = 32;

/// An exact amount, in thousandths. Finer parts are rounded up, as Kubernetes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount {
    milli: i128,
}

impl Amount {
    /// Reads a quantity; absent where the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_TEXT {
            return None;
        }
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, suffix) = rest.split_at_checked(end)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let (times, over) = scale(suffix)?;
        let over = over.checked_mul(10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
        let scaled = digits.checked_mul(times)?.checked_mul(1000)?;
        let milli = scaled.checked_div(over)? + i128::from(scaled.checked_rem(over)? != 0);
        Some(Self { milli: if negative { -milli } else { milli } })
    }

    /// The amount of a quantity of the API.
    pub fn of(quantity: &Quantity) -> Option<Self> {
        Self::parse(&quantity.0)
    }

    /// Whether it is more than nothing.
    pub fn is_positive(self) -> bool {
        self.milli > 0
    }

    /// Whole units, rounded up; absent where they are more than 2^63 − 1.
    pub fn units(self) -> Option<i64> {
        let units = self.milli.div_euclid(1000) + i128::from(self.milli.rem_euclid(1000) != 0);
        i64::try_from(units).ok()
    }

    /// The same text for the same amount, however it was written.
    pub fn canonical(self) -> String {
        format!("{}m", self.milli)
    }
}

/// What a suffix multiplies with and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1024_i128.pow(power), 1));
    let decimal = |power: u32| Some((10_i128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            if exponent.trim_start_matches(['+', '-']).len() + 1 < exponent.len() {
                return None;
            }
            let exponent: i32 = exponent.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs().min(18))?;
            match exponent {
                -18..0 => Some((1, power)),
                0..=18 => Some((power, 1)),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_suffixes_are_read() {
        for (text, units) in [
            ("0", 0),
            ("100", 100),
            ("+5", 5),
            ("-5", -5),
            ("1500m", 2),
            ("2.5", 3),
            (".5Gi", 512 << 20),
            ("5.", 5),
            ("1k", 1000),
            ("2M", 2_000_000),
            ("3G", 3_000_000_000),
            ("1T", 1_000_000_000_000),
            ("1P", 1_000_000_000_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1Ki", 1024),
            ("4Gi", 4 << 30),
            ("2Ti", 2 << 40),
            ("1Ei", 1 << 60),
            ("1e3", 1000),
            ("1E3", 1000),
            ("12e-1", 2),
            ("5u", 1),
            ("7n", 1),
        ] {
            assert_eq!(Amount::parse(text).and_then(Amount::units), Some(units), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", ".", "Gi", "1gi", "1 Gi", "4GB", "1.2.3", "--1", "1e", "1e+-3", "0x10", "1e99", "one", "1K"]
        {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
        assert_eq!(Amount::parse(&"9".repeat(33)), None);
        assert_eq!(Amount::parse("99999Ei").and_then(Amount::units), None);
    }

    #[test]
    fn equal_amounts_have_one_canonical_text() {
        let canonical = |text: &str| Amount::parse(text).unwrap().canonical();
        assert_eq!(canonical("4Gi"), canonical("4096Mi"));
        assert_eq!(canonical("1"), canonical("1000m"));
        assert_ne!(canonical("1"), canonical("1001m"));
    }
}
