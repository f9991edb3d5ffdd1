//! Who may use the daemon: its own user, root, and for root's daemon the members of one group.
//!
//! The socket's mode keeps others out already; the kernel's word about who connected is checked all the same, because a
//! mode can be changed by accident. Whoever may use root's daemon can read and write any file through it: the group is
//! as good as root, and documented so.

use std::fs;
use std::path::Path;

/// The group whose members may use root's daemon, unless another is named.
pub(crate) const GROUP: &str = "slipway";
const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";
/// Most of a user or group list that is read.
const MAX_LIST: u64 = 4 << 20;

/// Who is admitted.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    uid: u32,
    group: Option<Group>,
    users: Vec<(u32, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    gid: u32,
    members: Vec<String>,
}

impl Peers {
    /// For a daemon of user `uid` on this host; `name` is the group whose members may use root's.
    pub(crate) fn of_host(uid: u32, name: Option<&str>) -> Self {
        let users = users(&read(Path::new(USERS)));
        let group = name.filter(|_| uid == 0).and_then(|name| group(&read(Path::new(GROUPS)), name));
        Self { uid, group, users }
    }

    /// The group that the socket belongs to.
    pub(crate) fn gid(&self) -> Option<u32> {
        self.group.as_ref().map(|g| g.gid)
    }

    /// The name of the peer, if it is admitted.
    pub(crate) fn admit(&self, uid: u32, gid: u32) -> Option<String> {
        let name = self.users.iter().find(|(id, _)| *id == uid).map(|(_, name)| name.as_str());
        let member = self
            .group
            .as_ref()
            .is_some_and(|g| g.gid == gid || name.is_some_and(|name| g.members.iter().any(|m| m == name)));
        (uid == self.uid || uid == 0 || member).then(|| name.map_or_else(|| uid.to_string(), str::to_owned))
    }
}

/// Whether this host's list of groups has `name`.
pub(crate) fn group_exists(name: &str) -> bool {
    group(&read(Path::new(GROUPS)), name).is_some()
}

fn read(path: &Path) -> String {
    use std::io::Read;
    let mut text = String::new();
    // Without the list there are only numbers, which is enough to run.
    let _ = fs::File::open(path).and_then(|f| f.take(MAX_LIST).read_to_string(&mut text));
    text
}

fn users(passwd: &str) -> Vec<(u32, String)> {
    passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            Some((uid, name.to_owned()))
        })
        .collect()
}

fn group(groups: &str, name: &str) -> Option<Group> {
    groups.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [found, _, gid, members] = fields[..] else { return None };
        (found == name).then_some(())?;
        let members = members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
        Some(Group { gid: gid.parse().ok()?, members })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(uid: u32) -> Peers {
        Peers {
            uid,
            group: if uid == 0 { group("a:x:1:\nslipway:x:77:ann,ben\n", GROUP) } else { None },
            users: users("root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:\neve:x:1001:1001::/:\nbroken\n"),
        }
    }

    #[test]
    fn the_daemons_own_user_and_root_are_admitted_and_no_one_else() {
        let a = peers(1000);
        assert_eq!(a.admit(1000, 1000).as_deref(), Some("ann"));
        assert_eq!(a.admit(0, 0).as_deref(), Some("root"));
        assert_eq!(a.admit(1001, 1001), None);
        assert_eq!(a.admit(1001, 77), None, "the group is for root's daemon");
    }

    #[test]
    fn roots_daemon_admits_the_group_by_list_and_by_primary_group() {
        let a = peers(0);
        assert_eq!(a.gid(), Some(77));
        assert_eq!(a.admit(1000, 1000).as_deref(), Some("ann"));
        assert_eq!(a.admit(4711, 77).as_deref(), Some("4711"));
        assert_eq!(a.admit(1001, 1001), None);
    }
}
