//! Goals: what is asked of the figures, and what came of it.
//!
//! A goal may be about several cases, such as commands. It is met when all of them meet it, and its outcome is that of the worst.

use super::figure;

/// A goal with the figures that it is about.
#[derive(Clone, Debug)]
pub struct Goal {
    what: String,
    bound: Bound,
    unit: &'static str,
    cases: Vec<(String, f64)>,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    /// Figures may be as large as this, and no larger. `unit` follows the figure, with its space.
    pub fn at_most(what: impl Into<String>, bound: f64, unit: &'static str) -> Self {
        Self { what: what.into(), bound: Bound::AtMost(bound), unit, cases: Vec::new() }
    }

    /// Figures may be as small as this, and no smaller.
    pub fn at_least(what: impl Into<String>, bound: f64, unit: &'static str) -> Self {
        Self { what: what.into(), bound: Bound::AtLeast(bound), unit, cases: Vec::new() }
    }

    /// With one more figure. A name is only shown where there are several.
    #[must_use]
    pub fn case(mut self, name: impl Into<String>, figure: f64) -> Self {
        self.cases.push((name.into(), figure));
        self
    }

    /// With more figures.
    #[must_use]
    pub fn cases<N: Into<String>>(mut self, cases: impl IntoIterator<Item = (N, f64)>) -> Self {
        self.cases.extend(cases.into_iter().map(|(name, figure)| (name.into(), figure)));
        self
    }

    pub(super) const fn is_measured(&self) -> bool {
        !self.cases.is_empty()
    }

    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// The bound in words.
    pub(super) fn asked(&self) -> String {
        let (sign, bound) = match self.bound {
            Bound::AtMost(bound) => ('≤', bound),
            Bound::AtLeast(bound) => ('≥', bound),
        };
        format!("{sign} {}{}", figure(bound), self.unit)
    }

    /// The figure, or from the best to the worst one.
    pub(super) fn measured(&self) -> String {
        let sorted = self.sorted();
        match sorted.as_slice() {
            [] => "–".to_owned(),
            [(_, only)] => format!("{}{}", figure(*only), self.unit),
            [(_, best), .., (name, worst)] => {
                format!("{} to {}{} ({name})", figure(*best), figure(*worst), self.unit)
            }
        }
    }

    /// Whether it was met, and if not, how far the worst case is from it.
    pub(super) fn outcome(&self) -> String {
        let met = self.cases.iter().filter(|(_, figure)| self.meets(*figure)).count();
        let sorted = self.sorted();
        let Some((_, worst)) = sorted.last().filter(|_| met < self.cases.len()) else {
            return "met".to_owned();
        };
        let far = match self.bound {
            Bound::AtMost(bound) if *worst >= 2.0 * bound => format!("{}x as much", figure(worst / bound)),
            Bound::AtMost(bound) => format!("{} % above", percent(worst / bound - 1.0)),
            Bound::AtLeast(bound) => format!("{} % below", percent(1.0 - worst / bound)),
        };
        match self.cases.len() {
            1 => format!("missed: {far}"),
            all => format!("missed: {far}; {met} of {all} met"),
        }
    }

    fn meets(&self, figure: f64) -> bool {
        match self.bound {
            Bound::AtMost(bound) => figure <= bound,
            Bound::AtLeast(bound) => figure >= bound,
        }
    }

    /// The best case first.
    fn sorted(&self) -> Vec<&(String, f64)> {
        let mut sorted: Vec<_> = self.cases.iter().collect();
        sorted.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        if matches!(self.bound, Bound::AtLeast(_)) {
            sorted.reverse();
        }
        sorted
    }
}

/// In whole numbers, unless it is less than one.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 1.0 { format!("{percent:.1}") } else { format!("{percent:.0}") }
}

#[cfg(test)]
mod tests {
    use super::Goal;

    fn said(goal: &Goal) -> [String; 3] {
        [goal.asked(), goal.measured(), goal.outcome()]
    }

    #[test]
    fn a_figure_at_the_bound_meets_it() {
        assert_eq!(said(&Goal::at_most("a", 2.0, "x").case("", 2.0)), ["≤ 2.00x", "2.00x", "met"]);
        assert_eq!(said(&Goal::at_least("a", 2.0, "x").case("", 2.0)), ["≥ 2.00x", "2.00x", "met"]);
    }

    #[test]
    fn the_worst_case_decides_and_is_named() {
        let most = Goal::at_most("a", 0.5, "").cases([("one", 0.4), ("two", 0.6), ("three", 0.3)]);
        assert_eq!(said(&most), ["≤ 0.50", "0.30 to 0.60 (two)", "missed: 20 % above; 2 of 3 met"]);
        let least = Goal::at_least("a", 100_000.0, "/s").cases([("one", 400_000.0), ("two", 60_000.0)]);
        assert_eq!(said(&least), ["≥ 100,000/s", "400,000 to 60,000/s (two)", "missed: 40 % below; 1 of 2 met"]);
    }

    #[test]
    fn a_miss_by_little_is_not_told_as_nothing() {
        assert_eq!(Goal::at_most("a", 2.0, "").case("", 2.004).outcome(), "missed: 0.2 % above");
    }

    #[test]
    fn far_above_is_told_as_a_multiple() {
        assert_eq!(Goal::at_most("a", 0.75, "").case("", 2.1).outcome(), "missed: 2.80x as much");
    }
}
