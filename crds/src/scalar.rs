//! The strings and numbers that fields are made of. What they may hold is in their schema; what they mean is
//! found out by `tidegate_operator_core::compile`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Whether a policy is enforced, or decides, counts and logs while every request passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Decisions are carried out.
    #[default]
    Enforce,
    /// Decisions are made, counted and logged, and every request passes.
    Shadow,
}

macro_rules! text_scalar {
    ($(#[$doc:meta])* $name:ident, $max_length:literal, $pattern:literal, $message:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// What is said about a text of another form.
            pub const FORM: &str = $message;

            /// The text as the user wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "maxLength": $max_length,
                    "x-kubernetes-validations": [
                        { "rule": concat!("self.matches('", $pattern, "')"), "message": $message }
                    ]
                })
            }
        }
    };
}

text_scalar!(
    /// A length of time as in GEP-2257, such as `500ms`, `10s` or `1m30s`.
    Duration, 32, "^([0-9]{1,5}(h|m|s|ms)){1,4}$",
    "not a duration: write whole numbers with units h, m, s or ms, such as 500ms, 10s or 1m30s"
);
text_scalar!(
    /// A share of a whole, such as `75%` or `99.5%`.
    Percentage, 8, "^([0-9]{1,2}([.][0-9]{1,3})?|100)%$",
    "not a percentage: write a number from 0 to 100 with a percent sign, such as 75% or 99.5%"
);
text_scalar!(
    /// A status of a response, such as `500`, or a class of them: `4xx` or `5xx`.
    StatusMatch, 3, "^(4xx|5xx|[45][0-9]{2})$",
    "not a status: write 4xx, 5xx or a number from 400 to 599 in quotes, such as \"500\""
);
text_scalar!(
    /// The name of an HTTP header field, in any letter case.
    HeaderName, 128, "^[A-Za-z0-9!#$%&*+.^_`|~-]+$",
    "not the name of a header: write letters, digits and '-', such as x-api-key"
);

macro_rules! number_scalar {
    ($(#[$doc:meta])* $name:ident, $max_length:literal, $pattern:literal, $message:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(untagged)]
        pub enum $name {
            /// Written without quotes.
            Whole(i64),
            /// Written as a string.
            Text(String),
        }

        impl $name {
            /// What is said about a text of another form.
            pub const FORM: &str = $message;
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    Self::Whole(number) => number.fmt(f),
                    Self::Text(text) => text.fmt(f),
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::Text(text.to_owned())
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "x-kubernetes-int-or-string": true,
                    "maxLength": $max_length,
                    "x-kubernetes-validations": [{
                        "rule": concat!("string(self).matches('", $pattern, "')"),
                        "message": $message
                    }]
                })
            }
        }
    };
}

number_scalar!(
    /// A decimal number: `"1.5"` as a string, or `2` when it is whole. Never a float, whose digits would depend on
    /// who wrote it last.
    Decimal, 16, "^[0-9]{1,10}([.][0-9]{1,6})?$",
    "not a decimal number: write one such as \"1.5\", with quotes, or 2"
);
number_scalar!(
    /// A number of bytes, as `resource.Quantity`: `32Gi`, `500M` or `34359738368`.
    Bytes, 24, "^[0-9]{1,19}([.][0-9]{1,6})?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$",
    "not a number of bytes: write one such as 32Gi, 500M or 34359738368"
);
