//! What a query's filters say about the keys of live rows. Anything not understood is left to the filter above the scan, so a wrong
//! guess can only cost time.

use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::scalar::ScalarValue;
use flexmeter_model::Identifier;

/// The keys a scan needs to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyFilter {
    /// Only these devices.
    pub(super) hardware_ids: Option<Vec<String>>,
    /// Only these quantities. Names that are no identifier are left out: they match nothing.
    pub(super) identifiers: Option<Vec<Identifier>>,
    /// Only these areas of the grid.
    pub(super) areas: Option<Vec<String>>,
    /// Only times from here, in microseconds (inclusive).
    pub(super) from_us: Option<i64>,
    /// Only times to here, in microseconds (inclusive).
    pub(super) to_us: Option<i64>,
}

impl KeyFilter {
    /// Reads filters that are ANDed; `time_column` is the key column with the time.
    pub(super) fn of(filters: &[Expr], time_column: &str) -> Self {
        let mut keys = Self::default();
        for filter in filters {
            keys.add(filter, time_column);
        }
        keys
    }

    fn add(&mut self, filter: &Expr, time_column: &str) {
        match filter {
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::And,
                right,
            }) => {
                self.add(left, time_column);
                self.add(right, time_column);
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(value, _)) => self.compare(&column.name, *op, value, time_column),
                (Expr::Literal(value, _), Expr::Column(column)) => {
                    if let Some(op) = op.swap() {
                        self.compare(&column.name, op, value, time_column);
                    }
                }
                // a = 'x' OR a = 'y' is how short IN lists arrive
                _ if *op == Operator::Or => {
                    if let Some((column, words)) = alternatives(filter) {
                        self.only(&column, words);
                    }
                }
                _ => {}
            },
            Expr::InList(list) if !list.negated => {
                let words: Option<Vec<_>> = list
                    .list
                    .iter()
                    .map(|e| if let Expr::Literal(v, _) = e { text(v) } else { None })
                    .collect();
                if let (Expr::Column(column), Some(words)) = (list.expr.as_ref(), words) {
                    self.only(&column.name, words);
                }
            }
            Expr::Between(between) if !between.negated => {
                if let (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) =
                    (between.expr.as_ref(), between.low.as_ref(), between.high.as_ref())
                {
                    self.compare(&column.name, Operator::GtEq, low, time_column);
                    self.compare(&column.name, Operator::LtEq, high, time_column);
                }
            }
            _ => {}
        }
    }

    fn compare(&mut self, column: &str, op: Operator, value: &ScalarValue, time_column: &str) {
        if column == time_column {
            let ScalarValue::TimestampMicrosecond(Some(us), _) = value else {
                return;
            };
            if matches!(op, Operator::Eq | Operator::Gt | Operator::GtEq) {
                self.from_us = Some(self.from_us.map_or(*us, |t| t.max(*us)));
            }
            if matches!(op, Operator::Eq | Operator::Lt | Operator::LtEq) {
                self.to_us = Some(self.to_us.map_or(*us, |t| t.min(*us)));
            }
        } else if op == Operator::Eq
            && let Some(word) = text(value)
        {
            self.only(column, vec![word]);
        }
    }

    fn only(&mut self, column: &str, words: Vec<String>) {
        // A second condition on the same column can only narrow the first; the filter above does that.
        match column {
            "hardware_id" => {
                self.hardware_ids.get_or_insert(words);
            }
            "area" => {
                self.areas.get_or_insert(words);
            }
            "identifier" => {
                self.identifiers
                    .get_or_insert_with(|| words.iter().filter_map(|w| Identifier::from_name(w.as_bytes())).collect());
            }
            _ => {}
        }
    }

    pub(super) fn wants(&self, identifier: Identifier) -> bool {
        self.identifiers.as_ref().is_none_or(|list| list.contains(&identifier))
    }

    pub(super) fn covers(&self, time_us: i64) -> bool {
        self.from_us.is_none_or(|from| time_us >= from) && self.to_us.is_none_or(|to| time_us <= to)
    }
}

fn text(value: &ScalarValue) -> Option<String> {
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => Some(text.clone()),
        _ => None,
    }
}

/// `column = 'x' OR column = 'y' OR …` of one column.
fn alternatives(expr: &Expr) -> Option<(String, Vec<String>)> {
    match expr {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) => {
            let (column, mut words) = alternatives(left)?;
            let (other, more) = alternatives(right)?;
            words.extend(more);
            (column == other).then_some((column, words))
        }
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(column)) => {
                Some((column.name.clone(), vec![text(value)?]))
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{col, lit};

    fn at(us: i64) -> Expr {
        lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())))
    }

    #[test]
    fn filters_narrow_the_keys() {
        let id = Identifier::from_index(3).unwrap();
        let filters = [
            col("hardware_id").eq(lit("a")).or(lit("b").eq(col("hardware_id"))),
            col("identifier").in_list(vec![lit(id.name()), lit("no such thing")], false),
            col("window_start").gt_eq(at(10)).and(at(20).gt(col("window_start"))),
        ];
        let keys = KeyFilter::of(&filters, "window_start");
        assert_eq!(keys.hardware_ids, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(keys.identifiers, Some(vec![id]));
        assert!(keys.covers(10) && keys.covers(20) && !keys.covers(9) && !keys.covers(21));
        assert!(keys.wants(id) && !keys.wants(Identifier::from_index(4).unwrap()));
    }

    #[test]
    fn what_is_not_understood_narrows_nothing() {
        let filters = [
            col("hardware_id").eq(lit("a")).or(col("value").gt(lit(1.0))),
            col("identifier").in_list(vec![lit("x")], true),
            col("window_start").not_eq(at(1)),
            col("hardware_id").not_eq(lit("a")),
        ];
        assert_eq!(KeyFilter::of(&filters, "window_start"), KeyFilter::default());
    }
}
