//! Session options and closing of sessions: messages of the Flight protocol that the arrow-flight crate does not have yet.
//!
//! A session is nothing but a bearer token here. The only options are the catalog and the schema a session works in, and there is one
//! of each: setting them to what they are succeeds, anything else is an invalid value.

use std::collections::HashMap;

use prost::Message;

use crate::auth::Principal;
use crate::catalog::CATALOG;

/// A value of a session option.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionOptionValue {
    /// The value; absent clears the option.
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    pub(super) option_value: Option<OptionValue>,
}

/// The kinds of values.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum OptionValue {
    /// Text.
    #[prost(string, tag = "1")]
    Text(String),
    /// Yes or no.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// An integer.
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    /// A number.
    #[prost(double, tag = "4")]
    Double(f64),
    /// Several texts.
    #[prost(message, tag = "5")]
    Texts(TextList),
}

/// Several texts.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TextList {
    /// The texts.
    #[prost(string, repeated, tag = "1")]
    pub(super) values: Vec<String>,
}

/// Options to set.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsRequest {
    /// By name.
    #[prost(map = "string, message", tag = "1")]
    pub(super) session_options: HashMap<String, SessionOptionValue>,
}

/// What could not be set.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsResult {
    /// By name.
    #[prost(map = "string, message", tag = "1")]
    pub(super) errors: HashMap<String, OptionError>,
}

/// Why an option could not be set.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OptionError {
    /// The kind.
    #[prost(enumeration = "OptionErrorKind", tag = "1")]
    pub(super) value: i32,
}

/// Why an option could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum OptionErrorKind {
    /// Not said.
    Unspecified = 0,
    /// There is no such option.
    InvalidName = 1,
    /// It cannot have this value.
    InvalidValue = 2,
    /// Something else.
    Error = 3,
}

/// All options.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GetSessionOptionsResult {
    /// By name.
    #[prost(map = "string, message", tag = "1")]
    pub(super) session_options: HashMap<String, SessionOptionValue>,
}

/// How closing a session went.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CloseSessionResult {
    /// The status.
    #[prost(enumeration = "CloseStatus", tag = "1")]
    pub(super) status: i32,
}

/// How closing a session went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum CloseStatus {
    /// Not said.
    Unspecified = 0,
    /// It is closed.
    Closed = 1,
    /// It will be.
    Closing = 2,
    /// It cannot be.
    NotCloseable = 3,
}

const OPTION_CATALOG: &str = "catalog";
const OPTION_SCHEMA: &str = "schema";

/// Sets options of the principal's session.
pub(super) fn set(principal: &Principal, request: &SetSessionOptionsRequest) -> SetSessionOptionsResult {
    let mut errors = HashMap::new();
    for (name, value) in &request.session_options {
        let allowed = match name.as_str() {
            OPTION_CATALOG => CATALOG,
            OPTION_SCHEMA => principal.tenant.as_str(),
            _ => {
                errors.insert(
                    name.clone(),
                    OptionError {
                        value: OptionErrorKind::InvalidName as i32,
                    },
                );
                continue;
            }
        };
        let fits = match &value.option_value {
            None => true,
            Some(OptionValue::Text(text)) => text == allowed,
            Some(_) => false,
        };
        if !fits {
            errors.insert(
                name.clone(),
                OptionError {
                    value: OptionErrorKind::InvalidValue as i32,
                },
            );
        }
    }
    SetSessionOptionsResult { errors }
}

/// The options of the principal's session.
pub(super) fn get(principal: &Principal) -> GetSessionOptionsResult {
    let text = |text: &str| SessionOptionValue {
        option_value: Some(OptionValue::Text(text.to_owned())),
    };
    let session_options = HashMap::from([
        (OPTION_CATALOG.to_owned(), text(CATALOG)),
        (OPTION_SCHEMA.to_owned(), text(principal.tenant.as_str())),
    ]);
    GetSessionOptionsResult { session_options }
}

/// Ends a session. The token stays good until it expires: other connections of the same login may be using it.
pub(super) fn close() -> CloseSessionResult {
    CloseSessionResult {
        status: CloseStatus::Closed as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;
    use flexmeter_model::TenantId;

    #[test]
    fn options_can_only_be_set_to_what_they_are() {
        let principal = Principal {
            user: "admin".into(),
            tenant: TenantId::new("default").unwrap(),
            role: Role::Admin,
        };
        let value = |text: &str| SessionOptionValue {
            option_value: Some(OptionValue::Text(text.to_owned())),
        };
        let request = SetSessionOptionsRequest {
            session_options: HashMap::from([
                ("catalog".to_owned(), value("flexmeter")),
                ("schema".to_owned(), value("other")),
                ("colour".to_owned(), value("red")),
            ]),
        };
        let errors = set(&principal, &request).errors;
        assert_eq!(errors.len(), 2);
        assert_eq!(errors["schema"].value, OptionErrorKind::InvalidValue as i32);
        assert_eq!(errors["colour"].value, OptionErrorKind::InvalidName as i32);
        assert_eq!(get(&principal).session_options["schema"], value("default"));
    }
}
