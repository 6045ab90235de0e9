//! Numbers, percentages, ports and quantities.

use api::Value;
use api::names;
use api::quantity::Quantity;

use super::At;
use crate::kinds::Errors;

impl At<'_> {
    /// It may not be below zero.
    pub(crate) fn not_negative(&self, errors: &mut Errors) {
        if self.int() < 0 {
            self.invalid(errors, "must be greater than or equal to 0");
        }
    }

    /// It must be above zero.
    pub(crate) fn positive(&self, errors: &mut Errors) {
        if self.int() <= 0 {
            self.invalid_as(errors, self.int(), "must be greater than zero");
        }
    }

    /// It must be between two numbers, if it is there.
    pub(crate) fn within(&self, errors: &mut Errors, low: i64, high: i64) {
        if self.is_set() && !(low..=high).contains(&self.int()) {
            self.invalid(errors, format!("must be between {low} and {high}, inclusive"));
        }
    }

    /// It must be the number of a port; absent is zero, which is none.
    pub(crate) fn port(&self, errors: &mut Errors) {
        if !(1..=65_535).contains(&self.int()) {
            self.invalid_as(errors, self.int(), "must be between 1 and 65535, inclusive");
        }
    }

    /// It must be the number or the name of a port.
    pub(crate) fn port_or_name(&self, errors: &mut Errors) {
        match self.value {
            Value::String(_) => self.named(errors, names::port_name),
            _ => self.port(errors),
        }
    }

    /// It must be a number that is not negative, or a percentage.
    pub(crate) fn count_or_percent(&self, errors: &mut Errors) {
        match self.value {
            Value::String(_) => self.named(errors, names::percent),
            _ => self.not_negative(errors),
        }
    }

    /// A percentage may not be above a hundred.
    pub(crate) fn not_above_all(&self, errors: &mut Errors) {
        if self.percent().is_some_and(|p| p > 100) {
            self.invalid(errors, "must not be greater than 100%");
        }
    }

    /// The percentage, if it is one.
    fn percent(&self) -> Option<i64> {
        let digits = self.value.as_str()?.strip_suffix('%')?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    }

    /// The number, or the number in front of the percent sign; a text may be a number, too.
    pub(crate) fn count_or_percent_value(&self) -> i64 {
        let number = || self.text().parse().unwrap_or_else(|_| self.int());
        self.percent().unwrap_or_else(number)
    }

    /// The quantity may not be below zero.
    pub(crate) fn quantity_not_negative(&self, errors: &mut Errors) {
        if self.quantity().is_some_and(|q| q.is_negative()) {
            self.invalid(errors, "must be greater than or equal to 0");
        }
    }

    /// The quantity must be above zero; true when it is.
    pub(crate) fn quantity_positive(&self, errors: &mut Errors) -> bool {
        let bad = self.quantity().is_none_or(|q| q <= Quantity::ZERO);
        if bad {
            self.invalid(errors, "must be greater than zero");
        }
        !bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn counts_and_percentages() {
        let check = |value: Value, want: &[&str]| {
            let object = object!({"f": value});
            let mut errors = Vec::new();
            let at = At::of(&object, "f");
            at.count_or_percent(&mut errors);
            at.not_above_all(&mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
        };
        check(3.into(), &[]);
        check("25%".into(), &[]);
        check((-1).into(), &["f: Invalid value: -1: must be greater than or equal to 0"]);
        check("101%".into(), &["f: Invalid value: \"101%\": must not be greater than 100%"]);
        check(
            "x".into(),
            &[
                "f: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            ],
        );
    }
}
