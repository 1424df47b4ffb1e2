//! Ids as newtypes: cheap to clone, never mixed up.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Longest tenant or hardware id we accept, in bytes.
pub const ID_LEN_MAX: usize = 128;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// An id must have at least one character.
    #[error("the id is empty")]
    Empty,
    /// An id must fit a topic level and a log record.
    #[error("the id has {len} bytes, the limit is {ID_LEN_MAX}")]
    TooLong {
        /// Length found, in bytes.
        len: usize,
    },
    /// Characters that MQTT topics, file paths or terminals give a meaning are not allowed.
    #[error("the id contains {character:?}; '/', '+', '#', white space and control characters are not allowed")]
    Character {
        /// The first character that is not allowed.
        character: char,
    },
    /// A tenant is a folder of the lake.
    #[error("{id:?} means a folder wherever it is a file's name; give the tenant another name")]
    Folder {
        /// The id.
        id: &'static str,
    },
}

fn check_tenant(text: &str) -> Result<(), IdError> {
    match text {
        "." => Err(IdError::Folder { id: "." }),
        ".." => Err(IdError::Folder { id: ".." }),
        _ => check(text),
    }
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_LEN_MAX {
        return Err(IdError::TooLong { len: text.len() });
    }
    // nearly every id is plain ASCII, which is quicker seen byte by byte
    if text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'+' | b'#')) {
        return Ok(());
    }
    match text
        .chars()
        .find(|c| matches!(c, '/' | '+' | '#') || c.is_control() || c.is_whitespace())
    {
        Some(character) => Err(IdError::Character { character }),
        None => Ok(()),
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps an id.
            ///
            /// # Errors
            /// [`IdError`] when the text is empty, too long or would not be one MQTT topic level.
            pub fn new(text: &str) -> Result<Self, IdError> {
                $check(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// Checks a text without keeping it: the same rule as [`Self::new`].
            ///
            /// # Errors
            /// [`IdError`] as for [`Self::new`].
            pub fn check(text: &str) -> Result<(), IdError> {
                $check(text)
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id! {
    /// A tenant: the first field of every key, and a folder of the lake.
    TenantId, check_tenant
}
id! {
    /// A device's hardware id, unique within its tenant (D4.6 section 4.5).
    HardwareId, check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_id(text: &str, expected: Result<(), IdError>) {
        assert_eq!(HardwareId::new(text).map(|_| ()), expected, "{text:?}");
    }

    #[test]
    fn a_tenant_is_no_way_out_of_the_lake() {
        for id in [".", ".."] {
            assert_eq!(TenantId::new(id), Err(IdError::Folder { id }));
            assert_eq!(TenantId::check(id), Err(IdError::Folder { id }));
        }
        assert!(TenantId::new("...").is_ok() && TenantId::new(".north").is_ok() && HardwareId::new("..").is_ok());
    }

    #[test]
    fn an_id_is_one_topic_level() {
        check_id("123-TEST-4567890", Ok(()));
        check_id("zähler_7", Ok(()));
        check_id("", Err(IdError::Empty));
        check_id("a/b", Err(IdError::Character { character: '/' }));
        check_id("+", Err(IdError::Character { character: '+' }));
        check_id("a b", Err(IdError::Character { character: ' ' }));
        check_id("a\0", Err(IdError::Character { character: '\0' }));
        check_id(&"x".repeat(129), Err(IdError::TooLong { len: 129 }));
    }
}
