//! Reads values out of an alert's metadata.

use std::str::FromStr;

/// Metadata by name; a name that is missing, or whose value cannot be, gives nothing.
pub(super) struct Fields<'a>(pub(super) &'a [(String, String)]);

impl<'a> Fields<'a> {
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn parsed<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    /// A finite number.
    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.text(name)?.parse().ok().filter(|x: &f64| x.is_finite())
    }

    pub(super) fn share(&self, name: &str) -> Option<f64> {
        self.number(name).filter(|x| (0.0..=1.0).contains(x))
    }

    /// Outside `None`: it is given and wrong.
    #[allow(clippy::option_option)]
    pub(super) fn number_if_given(&self, name: &str) -> Option<Option<f64>> {
        match self.text(name) {
            None => Some(None),
            Some(_) => self.number(name).map(Some),
        }
    }
}
