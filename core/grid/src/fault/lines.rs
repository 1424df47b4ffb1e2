//! What fault location wants to know of lines and a network does not say, from a table.

use std::collections::HashMap;

use crate::bundle::{parse, rows};
use crate::error::GridError;
use crate::network::ComponentId;

const FILE: &str = "lines.csv";

/// What the network does not know of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LineFacts {
    /// Length, m.
    pub length_m: Option<f64>,
    /// Phases it has; without them, those of the branch above.
    pub phases: Option<[bool; 3]>,
    /// Whether a fuse or breaker at its near end clears faults behind it.
    pub has_device: bool,
}

/// Reads `branch_id,length_m,phases,device`: metres, letters of `abc`, 1 for a fuse or breaker at the near end. Fields may be empty.
///
/// # Errors
/// [`GridError::Bundle`] that names the line of the table.
///
/// ```
/// use flexmeter_grid::fault::line_facts;
/// let facts = line_facts("branch_id,length_m,phases,device\n7,120.5,ac,1\n8,,,\n")?;
/// assert_eq!((facts[&7].length_m, facts[&7].phases), (Some(120.5), Some([true, false, true])));
/// assert!(!facts[&8].has_device);
/// # Ok::<(), flexmeter_grid::GridError>(())
/// ```
pub fn line_facts(text: &str) -> Result<HashMap<ComponentId, LineFacts>, GridError> {
    let mut facts = HashMap::new();
    for (line, fields) in rows(FILE, text, &["branch_id", "length_m", "phases", "device"])? {
        let refused = |reason: String| GridError::Bundle { file: FILE, line, reason };
        let id: ComponentId = parse(FILE, line, "branch_id", fields[0])?;
        let length_m = match fields[1] {
            "" => None,
            text => Some(parse::<f64>(FILE, line, "length_m", text)?),
        };
        let has_device = match fields[3] {
            "" | "0" => false,
            "1" => true,
            other => return Err(refused(format!("device \"{other}\" is not 0 or 1"))),
        };
        let phases = match fields[2] {
            "" => None,
            letters => Some(phases(letters).ok_or_else(|| refused(format!("phases \"{letters}\" are not some of a, b and c")))?),
        };
        let new = LineFacts {
            length_m,
            phases,
            has_device,
        };
        if facts.insert(id, new).is_some() {
            return Err(refused(format!("branch {id} has two lines; leave one")));
        }
    }
    Ok(facts)
}

fn phases(letters: &str) -> Option<[bool; 3]> {
    let mut phases = [false; 3];
    for letter in letters.chars() {
        let phase = "abc".find(letter)?;
        if std::mem::replace(&mut phases[phase], true) {
            return None;
        }
    }
    Some(phases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let error = |row: &str| {
            line_facts(&format!("branch_id,length_m,phases,device\n1,5,,\n{row}\n"))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(error("2,5,abx,"), "lines.csv line 3: phases \"abx\" are not some of a, b and c");
        assert!(error("2,5,aa,").contains("\"aa\""));
        assert!(error("2,5,,yes").contains("\"yes\" is not 0 or 1"));
        assert!(error("1,5,,").contains("branch 1 has two lines"));
        assert!(error("2,far,,").contains("length_m"));
    }
}
