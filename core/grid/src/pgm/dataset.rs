//! The tables of a dataset, before anybody asks what they mean.
//!
//! A dataset of ten million nodes must not become a tree of JSON values first: each row is read straight into cells of known
//! attributes.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::GridError;
use crate::network::N_NODES_MAX;

/// Most components of one type in a dataset.
pub(crate) const N_COMPONENTS_MAX: usize = 4_000_000;

/// What a dataset is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatasetKind {
    /// A network and its sensors.
    Input,
    /// Changes to some attributes, possibly many scenarios of them.
    Update,
}

impl DatasetKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Update => "update",
        }
    }
}

/// One attribute of one component.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell {
    /// Absent, null or NaN.
    Missing,
    /// One number.
    One(f64),
    /// One number for each phase; NaN where a phase has none.
    Three([f64; 3]),
}

/// All components of one type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    pub(crate) component: &'static str,
    pub(crate) attributes: &'static [&'static str],
    cells: Vec<Cell>,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.cells.len().checked_div(self.attributes.len()).unwrap_or(0)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &[Cell]> {
        self.cells.chunks_exact(self.attributes.len())
    }
}

/// A dataset: for every scenario (one, unless it is a batch) its tables.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    pub(crate) kind: DatasetKind,
    pub(crate) scenarios: Vec<Vec<Table>>,
}

impl Dataset {
    /// Reads a dataset from JSON text.
    ///
    /// # Errors
    /// [`GridError::Dataset`] for text of another shape, [`GridError::DatasetType`] for a dataset of another type,
    /// [`GridError::UnsupportedComponent`] and [`GridError::TooLarge`].
    pub fn from_json(text: &str, kind: DatasetKind) -> Result<Self, GridError> {
        let refused = std::cell::RefCell::new(None);
        let predefined = predefined_attributes(text)?;
        let mut reader = serde_json::Deserializer::from_str(text);
        let top = TopSeed {
            kind,
            predefined: &predefined,
            refused: &refused,
        };
        let read = top.deserialize(&mut reader).and_then(|read| reader.end().map(|()| read));
        read.map_err(|error| {
            refused
                .borrow_mut()
                .take()
                .unwrap_or_else(|| GridError::Dataset { reason: error.to_string() })
        })
    }

    /// How many scenarios it has; one if it is not a batch.
    pub fn n_scenarios(&self) -> usize {
        self.scenarios.len()
    }

    pub(crate) fn scenario(&self, scenario: usize) -> Result<&[Table], GridError> {
        self.scenarios.get(scenario).map(Vec::as_slice).ok_or(GridError::Scenario {
            scenario,
            n_scenarios: self.scenarios.len(),
        })
    }
}

/// What a component type may say about itself: all attributes of the format, used or not.
fn attributes_of(component: &str, kind: DatasetKind) -> Result<(&'static str, &'static [&'static str]), GridError> {
    let input = kind == DatasetKind::Input;
    let node: &[&str] = if input { &["id", "u_rated"] } else { &["id"] };
    let branch: &[&str] = &["id", "from_status", "to_status"];
    let load: &[&str] = match input {
        true => &["id", "node", "status", "type", "p_specified", "q_specified"],
        false => &["id", "status", "p_specified", "q_specified"],
    };
    let power_sensor: &[&str] = match input {
        true => &[
            "id",
            "measured_object",
            "measured_terminal_type",
            "power_sigma",
            "p_measured",
            "q_measured",
            "p_sigma",
            "q_sigma",
        ],
        false => &["id", "power_sigma", "p_measured", "q_measured", "p_sigma", "q_sigma"],
    };
    let voltage_sensor: &[&str] = match input {
        true => &["id", "measured_object", "u_sigma", "u_measured", "u_angle_measured"],
        false => &["id", "u_sigma", "u_measured", "u_angle_measured"],
    };
    let current_sensor: &[&str] = match input {
        true => &[
            "id",
            "measured_object",
            "measured_terminal_type",
            "angle_measurement_type",
            "i_sigma",
            "i_angle_sigma",
            "i_measured",
            "i_angle_measured",
        ],
        false => &["id", "i_sigma", "i_angle_sigma", "i_measured", "i_angle_measured"],
    };
    Ok(match component {
        "node" => ("node", node),
        "line" if input => (
            "line",
            &[
                "id",
                "from_node",
                "to_node",
                "from_status",
                "to_status",
                "r1",
                "x1",
                "c1",
                "tan1",
                "r0",
                "x0",
                "c0",
                "tan0",
                "i_n",
            ],
        ),
        "line" => ("line", branch),
        "link" if input => ("link", &["id", "from_node", "to_node", "from_status", "to_status"]),
        "link" => ("link", branch),
        "transformer" if input => (
            "transformer",
            &[
                "id",
                "from_node",
                "to_node",
                "from_status",
                "to_status",
                "u1",
                "u2",
                "sn",
                "uk",
                "pk",
                "i0",
                "p0",
                "winding_from",
                "winding_to",
                "clock",
                "tap_side",
                "tap_pos",
                "tap_min",
                "tap_max",
                "tap_nom",
                "tap_size",
                "uk_min",
                "uk_max",
                "pk_min",
                "pk_max",
                "r_grounding_from",
                "x_grounding_from",
                "r_grounding_to",
                "x_grounding_to",
                "i0_zero_sequence",
                "p0_zero_sequence",
            ],
        ),
        "transformer" => ("transformer", &["id", "from_status", "to_status", "tap_pos"]),
        "source" if input => (
            "source",
            &["id", "node", "status", "u_ref", "u_ref_angle", "sk", "rx_ratio", "z01_ratio"],
        ),
        "source" => ("source", &["id", "status", "u_ref", "u_ref_angle"]),
        "sym_load" => ("sym_load", load),
        "sym_gen" => ("sym_gen", load),
        "asym_load" => ("asym_load", load),
        "asym_gen" => ("asym_gen", load),
        "shunt" if input => ("shunt", &["id", "node", "status", "g1", "b1", "g0", "b0"]),
        "shunt" => ("shunt", &["id", "status", "g1", "b1", "g0", "b0"]),
        "sym_voltage_sensor" => ("sym_voltage_sensor", voltage_sensor),
        "asym_voltage_sensor" => ("asym_voltage_sensor", voltage_sensor),
        "sym_power_sensor" => ("sym_power_sensor", power_sensor),
        "asym_power_sensor" => ("asym_power_sensor", power_sensor),
        "sym_current_sensor" => ("sym_current_sensor", current_sensor),
        "asym_current_sensor" => ("asym_current_sensor", current_sensor),
        other => {
            return Err(GridError::UnsupportedComponent {
                component: other.to_owned(),
                instead: match other {
                    "three_winding_transformer" => "three transformers that meet in an extra node",
                    "generic_branch" | "asym_line" => "a line or a transformer",
                    "transformer_tap_regulator" | "voltage_regulator" => "a fixed tap_pos",
                    "fault" => "a shunt at the faulted node",
                    _ => "node, line, link, transformer, source, sym_/asym_ load, gen, voltage, power or current sensor, or shunt",
                },
            });
        }
    })
}

type Predefined = BTreeMap<String, Vec<String>>;

/// The document's `attributes` may stand behind its `data`, which needs them: they are read first, by themselves.
fn predefined_attributes(text: &str) -> Result<Predefined, GridError> {
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(default)]
        attributes: Predefined,
    }
    let head: Head = serde_json::from_str(text).map_err(|error| GridError::Dataset { reason: error.to_string() })?;
    Ok(head.attributes)
}

/// Where an error of our own waits while serde's passes through.
type Refused = std::cell::RefCell<Option<GridError>>;

fn refuse<E: serde::de::Error>(refused: &Refused, error: GridError) -> E {
    let text = error.to_string();
    *refused.borrow_mut() = Some(error);
    E::custom(text)
}

struct TopSeed<'a> {
    kind: DatasetKind,
    predefined: &'a Predefined,
    refused: &'a Refused,
}

impl<'de> DeserializeSeed<'de> for TopSeed<'_> {
    type Value = Dataset;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Dataset, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TopSeed<'_> {
    type Value = Dataset;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with version, type, is_batch, attributes and data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dataset, A::Error> {
        let mut scenarios = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "type" => {
                    let found: String = map.next_value()?;
                    if found != self.kind.name() {
                        let expected = self.kind.name();
                        return Err(refuse(self.refused, GridError::DatasetType { found, expected }));
                    }
                }
                "data" => scenarios = Some(map.next_value_seed(DataSeed(&self))?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Dataset {
            kind: self.kind,
            scenarios: scenarios.ok_or_else(|| A::Error::missing_field("data"))?,
        })
    }
}

/// `data`: one scenario as an object, or an array of them.
struct DataSeed<'a>(&'a TopSeed<'a>);

impl<'de> DeserializeSeed<'de> for DataSeed<'_> {
    type Value = Vec<Vec<Table>>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DataSeed<'_> {
    type Value = Vec<Vec<Table>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of component tables, or an array of such objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Ok(vec![ScenarioSeed(self.0).visit_map(map)?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut scenarios = Vec::new();
        while let Some(scenario) = seq.next_element_seed(ScenarioSeed(self.0))? {
            scenarios.push(scenario);
        }
        Ok(scenarios)
    }
}

struct ScenarioSeed<'a>(&'a TopSeed<'a>);

impl<'de> DeserializeSeed<'de> for ScenarioSeed<'_> {
    type Value = Vec<Table>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ScenarioSeed<'_> {
    type Value = Vec<Table>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of component tables")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tables = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let (component, attributes) = attributes_of(&name, self.0.kind).map_err(|error| refuse::<A::Error>(self.0.refused, error))?;
            let predefined = match self.0.predefined.get(component) {
                None => Vec::new(),
                Some(names) => names
                    .iter()
                    .map(|name| index_of(component, attributes, name))
                    .collect::<Result<_, A::Error>>()?,
            };
            tables.push(map.next_value_seed(TableSeed {
                component,
                attributes,
                predefined: &predefined,
                refused: self.0.refused,
            })?);
        }
        Ok(tables)
    }
}

/// Where an attribute stands in its component's list; `None` for what other tools add for themselves.
fn index_of<E: serde::de::Error>(component: &str, attributes: &[&str], name: &str) -> Result<Option<usize>, E> {
    match attributes.iter().position(|&attribute| attribute == name) {
        Some(index) => Ok(Some(index)),
        None if name == "extra" => Ok(None),
        None => Err(E::custom(format!(
            "{component} has no attribute {name}; it has {}",
            attributes.join(", ")
        ))),
    }
}

struct TableSeed<'a> {
    component: &'static str,
    attributes: &'static [&'static str],
    /// For each place of a row given as array: the attribute it holds.
    predefined: &'a [Option<usize>],
    refused: &'a Refused,
}

impl<'de> DeserializeSeed<'de> for TableSeed<'_> {
    type Value = Table;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Table, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for TableSeed<'_> {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {} components", self.component)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Table, A::Error> {
        let mut cells = Vec::new();
        let mut n = 0;
        while let Some(()) = seq.next_element_seed(RowSeed {
            table: &self,
            cells: &mut cells,
        })? {
            n += 1;
            let (what, n_max) = match self.component {
                "node" => ("nodes", N_NODES_MAX),
                other => (other, N_COMPONENTS_MAX),
            };
            if n > n_max {
                return Err(refuse(self.refused, GridError::TooLarge { what, n, n_max }));
            }
        }
        Ok(Table {
            component: self.component,
            attributes: self.attributes,
            cells,
        })
    }
}

struct RowSeed<'a, 'b> {
    table: &'a TableSeed<'a>,
    cells: &'b mut Vec<Cell>,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one {} as object or, with predefined attributes, as array", self.table.component)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let start = self.cells.len();
        self.cells.resize(start + self.table.attributes.len(), Cell::Missing);
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match index_of::<A::Error>(self.table.component, self.table.attributes, &name)? {
                Some(index) => self.cells[start + index] = map.next_value_seed(CellSeed)?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let start = self.cells.len();
        self.cells.resize(start + self.table.attributes.len(), Cell::Missing);
        for &index in self.table.predefined {
            match index {
                Some(index) => match seq.next_element_seed(CellSeed)? {
                    Some(cell) => self.cells[start + index] = cell,
                    None => return Err(A::Error::custom("a row is shorter than its predefined attributes")),
                },
                None => {
                    seq.next_element::<IgnoredAny>()?;
                }
            }
        }
        match seq.next_element::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(A::Error::custom(format!(
                "a row of {} is longer than its predefined attributes",
                self.table.component
            ))),
        }
    }
}

struct CellSeed;

impl<'de> DeserializeSeed<'de> for CellSeed {
    type Value = Cell;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Cell, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CellSeed {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, three numbers, \"inf\", \"-inf\", \"nan\" or null")
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Missing)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Cell, E> {
        Ok(Cell::One(f64::from(u8::from(value))))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        Ok(if value.is_nan() { Cell::Missing } else { Cell::One(value) })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::One(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
        Ok(Cell::One(value as f64))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Cell, E> {
        match value.to_ascii_lowercase().as_str() {
            "inf" | "+inf" | "infinity" => Ok(Cell::One(f64::INFINITY)),
            "-inf" | "-infinity" => Ok(Cell::One(f64::NEG_INFINITY)),
            "nan" => Ok(Cell::Missing),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(value), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cell, A::Error> {
        let mut values = [f64::NAN; 3];
        for (phase, value) in values.iter_mut().enumerate() {
            match seq.next_element_seed(CellSeed)? {
                Some(Cell::One(number)) => *value = number,
                Some(Cell::Missing) => {}
                Some(Cell::Three(_)) => return Err(A::Error::custom("three numbers within three numbers")),
                None => return Err(A::Error::invalid_length(phase, &"three numbers, one for each phase")),
            }
        }
        match seq.next_element::<IgnoredAny>()? {
            Some(_) => Err(A::Error::custom("more than three numbers, one for each phase")),
            None if values.iter().all(|value| value.is_nan()) => Ok(Cell::Missing),
            None => Ok(Cell::Three(values)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Dataset, GridError> {
        Dataset::from_json(text, DatasetKind::Input)
    }

    #[test]
    fn rows_are_objects_or_arrays_of_predefined_attributes() {
        let objects = read(r#"{"type":"input","data":{"node":[{"id":1,"u_rated":400},{"id":2}]}}"#).unwrap();
        let arrays =
            read(r#"{"data":{"node":[[400,1],[null,2]]},"attributes":{"node":["u_rated","id"]},"type":"input","is_batch":false}"#).unwrap();
        assert_eq!(objects, arrays);
        let table = &objects.scenarios[0][0];
        assert_eq!(table.len(), 2);
        assert_eq!(table.rows().nth(1).unwrap(), [Cell::One(2.0), Cell::Missing]);
    }

    #[test]
    fn three_phases_infinity_and_null_are_understood() {
        let text = r#"{"type":"input","data":{"asym_load":[{"id":7,"p_specified":[1,"inf",null],"q_specified":[null,null,null]}]}}"#;
        let dataset = read(text).unwrap();
        let row = dataset.scenarios[0][0].rows().next().unwrap().to_vec();
        let Cell::Three([a, b, c]) = row[4] else { panic!("{row:?}") };
        assert_eq!((a, b), (1.0, f64::INFINITY));
        assert!(c.is_nan());
        assert_eq!(row[5], Cell::Missing);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |text: &str, expected: &str| {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("{", "EOF");
        check("[]", "the dataset cannot be read");
        check(r#"{"type":"input"}"#, "missing field `data`");
        check(r#"{"type":"update","data":{}}"#, "type \"update\", expected \"input\"");
        check(r#"{"type":"input","data":{"three_winding_transformer":[]}}"#, "three transformers");
        check(
            r#"{"type":"input","data":{"node":[{"id":1,"u_rate":1}]}}"#,
            "node has no attribute u_rate",
        );
        check(r#"{"type":"input","data":{"node":[{"id":1,"u_rated":"high"}]}}"#, "\"high\"");
        check(r#"{"type":"input","data":{"node":[[1,2]]}}"#, "longer than its predefined");
        check(r#"{"type":"input","data":{"node":[{"id":[1,2]}]}}"#, "three numbers");
    }

    #[test]
    fn a_batch_has_one_set_of_tables_a_scenario() {
        let text = r#"{"type":"update","is_batch":true,"data":[{"line":[{"id":1,"from_status":0}]},{}]}"#;
        let dataset = Dataset::from_json(text, DatasetKind::Update).unwrap();
        assert_eq!(dataset.n_scenarios(), 2);
        assert!(dataset.scenario(2).is_err());
    }
}
