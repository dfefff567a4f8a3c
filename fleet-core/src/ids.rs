//! Identifiers. Each kind is a type of its own, so that none is taken for another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A text that is not the identifier it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found:?}")]
pub struct IdError {
    /// What would have been accepted.
    pub expected: &'static str,
    /// The text as given.
    pub found: String,
}

macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// A UUID of version 7 (time-ordered), written with a prefix.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// What the text form begins with.
            pub const PREFIX: &'static str = $prefix;

            /// A new identifier from an instant and 10 random bytes.
            #[must_use]
            pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
                let millis = u64::try_from(now.as_millis()).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            }

            /// The last 8 hexadecimal digits (the random part), for names that people read.
            #[must_use]
            pub fn short(&self) -> String {
                let text = self.0.simple().to_string();
                text[text.len() - 8..].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, self.0.simple())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.strip_prefix($prefix)
                    .filter(|hex| hex.len() == 32 && !hex.contains('-'))
                    .and_then(|hex| uuid::Uuid::try_parse(hex).ok())
                    .map(Self)
                    .ok_or_else(|| IdError {
                        expected: concat!("an id such as ", $prefix, "0190f3a1b2c37d4e8f60718293a4b5c6"),
                        found: text.to_owned(),
                    })
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    )*};
}

uuid_ids! {
    /// One rollout.
    RolloutId = "roll_";
    /// One snapshot.
    SnapshotId = "snap_";
    /// One update of one instance (or of one group).
    UpdateId = "upd_";
}

macro_rules! text_ids {
    ($($(#[$doc:meta])* $name:ident: $expected:literal, $valid:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        // Shared: identifiers are copied far more often than made.
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a text after checking it.
            ///
            /// # Errors
            /// The text does not have the form of this kind of identifier.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) {
                    Ok(Self(text.into()))
                } else {
                    Err(IdError { expected: $expected, found: text })
                }
            }

            /// The identifier as text.
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

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
    )*};
}

text_ids! {
    /// The full id of a container: 64 lower-case hexadecimal digits. Mutating calls take only this, never a name.
    ContainerId: "a container id of 64 hexadecimal digits", is_hex64;
    /// A host: one engine endpoint. Today a fleet has one, [`HostId::local`].
    HostId: "a host name of 1 to 128 letters, digits, '.', '_' or '-'", is_name;
    /// The id of an image: `sha256:` and 64 hexadecimal digits (the digest of its config, or of its manifest in the
    /// containerd image store).
    ImageId: "an image id such as sha256:<64 hexadecimal digits>", is_image_id;
    /// The name of an instance: the name of its container, without the leading slash.
    InstanceName: "a container name of letters, digits, '_', '.' and '-'", is_name;
    /// The owner of instances.
    TenantId: "a tenant of 1 to 128 letters, digits, '.', '_' or '-'", is_name;
    /// The name of a volume.
    VolumeName: "a volume name of letters, digits, '_', '.' and '-'", is_name;
}

impl HostId {
    const LOCAL: &'static str = "local";

    /// The one host of a fleet that has one.
    #[must_use]
    pub fn local() -> Self {
        Self(Self::LOCAL.into())
    }

    fn is_local(&self) -> bool {
        &*self.0 == Self::LOCAL
    }
}

impl ContainerId {
    /// The first 12 digits, as the engine prints them for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl ImageId {
    /// The first 12 digits after `sha256:`.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[7..19]
    }
}

fn is_hex64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_image_id(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex64)
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 255
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// An instance on a host: what a journal row, a snapshot or a hold belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId {
    /// Where it runs.
    pub host: HostId,
    /// Its name there.
    pub name: InstanceName,
}

impl InstanceId {
    /// An instance on the local host.
    #[must_use]
    pub fn local(name: InstanceName) -> Self {
        Self {
            host: HostId::local(),
            name,
        }
    }
}

impl fmt::Display for InstanceId {
    /// The name alone on the local host, else `host/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.is_local() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.host, self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_ids_read_back_what_they_print_and_nothing_else() {
        let id = UpdateId::new(Timestamp::from_millis(1_700_000_000_000), [7; 10]);
        assert_eq!(id.to_string().parse::<UpdateId>(), Ok(id));
        assert!(id.to_string().starts_with("upd_018bcfe5"));
        for bad in [
            "",
            "upd_",
            "snap_018bcfe5680077070707070707070707",
            "upd_../../etc/passwd00000000000000000",
        ] {
            assert!(bad.parse::<UpdateId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn text_ids_refuse_what_the_engine_would_refuse() {
        assert!(ContainerId::new("a".repeat(64)).is_ok());
        assert!(ContainerId::new("a".repeat(12)).is_err());
        assert!(ContainerId::new("A".repeat(64)).is_err());
        assert!(ImageId::new(format!("sha256:{}", "0".repeat(64))).is_ok());
        assert!(InstanceName::new("web-1.x_y").is_ok());
        for bad in ["", "/web", "-web", "we b", "../x"] {
            assert!(InstanceName::new(bad).is_err(), "{bad}");
        }
    }
}
