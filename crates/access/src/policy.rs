//! Actions, roles, grants, and the one function that decides.
//!
//! | | see | operate | configure | export | administer |
//! |---|---|---|---|---|---|
//! | reader | yes | | | | |
//! | operator | yes | yes | | | |
//! | administrator | yes | yes | yes | yes | yes |
//! | and whoever is granted `export` | | | | yes | |
//!
//! A grant holds everywhere or for one machine; what any grant allows is allowed. Exporting is a permission of its own
//! because a package is everything a guest knows, and whoever makes backups need not be able to do anything else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, ErrorKind};
use crate::users::User;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Look: list and read machines, jobs, switches, the host.
    See,
    /// Start, stop, save, pause, reset; keys, screen and console; media.
    Operate,
    /// Define, change, import, delete; disks and switches.
    Configure,
    /// Take a machine's content out.
    Export,
    /// Change who may do what.
    Administer,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::See, Self::Operate, Self::Configure, Self::Export, Self::Administer];

    /// The word for it in messages and in the audit log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::See => "see",
            Self::Operate => "operate",
            Self::Configure => "configure",
            Self::Export => "export",
            Self::Administer => "administer",
        }
    }
}

/// What somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May look.
    Reader,
    /// May look and operate.
    Operator,
    /// May do everything.
    Administrator,
}

impl Role {
    /// The word for it, as it is stored and typed.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        [Self::Reader, Self::Operator, Self::Administrator]
            .into_iter()
            .find(|role| role.word() == word)
            .ok_or_else(|| {
                Error::new(ErrorKind::Invalid, format!("`{word}` is no role"))
                    .hint("a role is `reader`, `operator` or `administrator`")
            })
    }
}

/// What somebody was given, everywhere or for one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// The role; none gives nothing by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whether machines may be exported.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub export: bool,
}

impl Grant {
    /// Everything.
    pub const ALL: Self = Self { role: Some(Role::Administrator), export: true };

    /// Whether it gives nothing at all.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn allows(self, action: Action) -> bool {
        match action {
            Action::See => self.role.is_some() || self.export,
            Action::Operate => self.role >= Some(Role::Operator),
            Action::Export => self.export || self.role == Some(Role::Administrator),
            Action::Configure | Action::Administer => self.role == Some(Role::Administrator),
        }
    }
}

impl fmt::Display for Grant {
    /// As it is typed: `operator+export`, `reader`, `export`; `none` for nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.role, self.export) {
            (None, false) => f.write_str("none"),
            (None, true) => f.write_str("export"),
            (Some(role), false) => role.fmt(f),
            (Some(role), true) => write!(f, "{role}+export"),
        }
    }
}

impl FromStr for Grant {
    type Err = Error;

    fn from_str(words: &str) -> Result<Self, Error> {
        let mut grant = Self::default();
        for word in words.split('+') {
            match word {
                "none" if words == "none" => {}
                "export" => grant.export = true,
                role if grant.role.is_none() => grant.role = Some(role.parse()?),
                _ => {
                    return Err(Error::new(ErrorKind::Invalid, format!("`{words}` names two roles"))
                        .hint("a grant is a role, `export`, or both, as in `reader+export`"));
                }
            }
        }
        Ok(grant)
    }
}

/// Who asks, found out.
#[derive(Clone, Debug)]
pub struct Identity {
    name: String,
    everywhere: Grant,
    machines: std::collections::BTreeMap<Uuid, Grant>,
}

impl Identity {
    /// Somebody whom the kernel let use the daemon's socket, who may do everything: through the daemon they could anyway.
    #[must_use]
    pub fn local(name: impl Into<String>) -> Self {
        Self { name: name.into(), everywhere: Grant::ALL, machines: std::collections::BTreeMap::new() }
    }

    pub(crate) fn of(user: &User) -> Self {
        Self { name: user.name.clone(), everywhere: user.grant, machines: user.machines.clone() }
    }

    /// The user's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `action` is allowed, on `machine` or, without one, on the host as a whole.
    #[must_use]
    pub fn may(&self, action: Action, machine: Option<Uuid>) -> bool {
        let here = machine.and_then(|id| self.machines.get(&id)).copied().unwrap_or_default();
        self.everywhere.allows(action) || here.allows(action)
    }

    /// Whether anything at all may be seen, so that listings are worth making: whoever was granted one machine may list,
    /// and sees that one.
    #[must_use]
    pub fn may_list(&self) -> bool {
        self.everywhere.allows(Action::See) || self.machines.values().any(|grant| grant.allows(Action::See))
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Grant, Identity, Role};
    use uuid::Uuid;

    fn identity(everywhere: &str, machines: &[(Uuid, &str)]) -> Identity {
        Identity {
            name: "x".to_owned(),
            everywhere: everywhere.parse().unwrap(),
            machines: machines.iter().map(|(id, grant)| (*id, grant.parse().unwrap())).collect(),
        }
    }

    #[test]
    fn the_table_is_the_policy() {
        use Action::{Administer, Configure, Export, Operate, See};
        for (grant, allowed) in [
            ("none", &[][..]),
            ("reader", &[See]),
            ("export", &[See, Export]),
            ("reader+export", &[See, Export]),
            ("operator", &[See, Operate]),
            ("operator+export", &[See, Operate, Export]),
            ("administrator", &[See, Operate, Configure, Export, Administer]),
        ] {
            let who = identity(grant, &[]);
            for action in Action::ALL {
                assert_eq!(who.may(action, None), allowed.contains(&action), "{grant} {}", action.word());
                assert_eq!(who.may(action, Some(Uuid::nil())), allowed.contains(&action), "{grant}");
            }
            assert_eq!(grant.parse::<Grant>().unwrap().to_string(), grant);
        }
    }

    #[test]
    fn a_grant_for_one_machine_ends_there() {
        let (mine, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let who = identity("none", &[(mine, "operator+export")]);
        assert!(who.may(Action::Operate, Some(mine)) && who.may(Action::Export, Some(mine)));
        assert!(!who.may(Action::See, Some(other)) && !who.may(Action::See, None));
        assert!(!who.may(Action::Configure, Some(mine)));
        assert!(who.may_list());
        assert!(!identity("none", &[]).may_list());
        let more = identity("reader", &[(mine, "operator")]);
        assert!(more.may(Action::See, Some(other)) && !more.may(Action::Operate, Some(other)));
    }

    #[test]
    fn two_roles_are_refused() {
        assert!("reader+operator".parse::<Grant>().is_err());
        assert!("root".parse::<Role>().is_err());
        assert!("none+export".parse::<Grant>().is_err());
    }
}
