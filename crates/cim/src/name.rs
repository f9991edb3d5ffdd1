//! Names of classes, properties, methods, parameters, qualifiers and keys: they keep the case they were written in, and
//! compare without regard to it (DSP0004, 5.7.1).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A CIM name. Cheap to clone.
#[derive(Clone)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.0.eq_ignore_ascii_case(other)
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        let folded = |name: &Self| name.0.to_ascii_lowercase();
        folded(self).cmp(&folded(other))
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.0.bytes() {
            state.write_u8(byte.to_ascii_lowercase());
        }
        state.write_u8(0xff);
    }
}

#[cfg(test)]
mod tests {
    use super::Name;
    use std::collections::{BTreeSet, HashSet};

    #[test]
    fn names_that_differ_in_case_are_one() {
        let spelled = ["Msvm_ComputerSystem", "MSVM_computersystem", "msvm_ComputerSystem"].map(Name::from);
        assert_eq!(spelled.iter().collect::<HashSet<_>>().len(), 1);
        assert_eq!(spelled.iter().collect::<BTreeSet<_>>().len(), 1);
        assert_eq!(spelled[0], "msvm_computersystem");
        assert_eq!(spelled[1].to_string(), "MSVM_computersystem");
        assert_ne!(spelled[0], Name::from("Msvm_ComputerSystems"));
    }
}
