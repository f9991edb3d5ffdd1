//! Users of the interfaces that listen beyond the socket.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Unique name; case does not count.
    pub name: String,
    /// What is granted everywhere: `reader`, `operator` or `administrator`, with or without `+export`; `export` alone; `none`.
    pub grant: String,
    /// What is granted for single machines, by id.
    #[serde(default)]
    pub machines: BTreeMap<Uuid, String>,
    /// Whether there is a password.
    pub password: bool,
    /// Whether the user may sign in by NTLM, with the same password.
    #[serde(default)]
    pub ntlm: bool,
    /// Client certificates that are this user, by their SHA-256 in hexadecimal.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// Whether the user is kept out for now.
    pub disabled: bool,
    /// When it was added.
    pub created: String,
}

/// Users, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserList {
    /// The users.
    pub users: Vec<User>,
}

/// What is granted for one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineGrant {
    /// Name or id of a machine; the id of one that is not there is taken as it is.
    pub machine: String,
    /// As [`User::grant`]; `none` takes it away.
    pub grant: String,
}

/// A user to add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Its name.
    pub name: String,
    /// What else there is to say.
    #[serde(flatten)]
    pub edit: UserEdit,
}

/// What is to change of a user; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserEdit {
    /// A new password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Whether the user may sign in by NTLM. `true` takes the password in the same request, since the NT hash comes from it;
    /// a new password without a word about it leaves it as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ntlm: Option<bool>,
    /// As [`User::grant`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// What is granted for single machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineGrant>,
    /// Certificates that are this user from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_certificates: Vec<String>,
    /// Certificates that are not any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_certificates: Vec<String>,
    /// Whether the user is kept out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

impl From<access::User> for User {
    fn from(user: access::User) -> Self {
        Self {
            name: user.name,
            grant: user.grant.to_string(),
            machines: user.machines.into_iter().map(|(id, grant)| (id, grant.to_string())).collect(),
            password: user.password.is_some(),
            ntlm: user.nt_hash.is_some(),
            certificates: user.certificates,
            disabled: user.disabled,
            created: user.created.to_string(),
        }
    }
}
