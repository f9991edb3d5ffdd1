//! `LIKE`: `%` for any text, `_` for any character, `[abc]`, `[a-f]` and `[^abc]` for one of a set. Case does not matter.

use super::compare::folded;

/// One place of a pattern.
enum Atom {
    /// Any text, also none.
    Any,
    /// Any character.
    One,
    /// This character.
    Exactly(char),
    /// A character of these ranges, or none of them.
    Set { ranges: Vec<(char, char)>, negated: bool },
}

impl Atom {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Exactly(exactly) => *exactly == c,
            Self::Set { ranges, negated } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

/// Whether `text` as a whole fits the pattern. Takes time in proportion to the product of their lengths at most.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let pattern = atoms(&folded(pattern).collect::<Vec<_>>());
    let text: Vec<char> = folded(text).collect();
    let (mut at, mut next) = (0, 0);
    // Where to go on after the last `%` when what follows it does not fit: only the last one needs to be tried again,
    // because what an earlier one could take instead, the later one can take too.
    let mut retry: Option<(usize, usize)> = None;
    while next < text.len() {
        match pattern.get(at) {
            Some(Atom::Any) => {
                retry = Some((at + 1, next));
                at += 1;
            }
            Some(atom) if atom.takes(text[next]) => {
                at += 1;
                next += 1;
            }
            _ => match &mut retry {
                Some((behind, from)) => {
                    *from += 1;
                    (at, next) = (*behind, *from);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|atom| matches!(atom, Atom::Any))
}

fn atoms(pattern: &[char]) -> Vec<Atom> {
    let mut atoms = Vec::with_capacity(pattern.len());
    let mut at = 0;
    while let Some(c) = pattern.get(at) {
        at += 1;
        atoms.push(match c {
            '%' => Atom::Any,
            '_' => Atom::One,
            '[' => match set(&pattern[at..]) {
                Some((length, atom)) => {
                    at += length;
                    atom
                }
                None => Atom::Exactly('['),
            },
            c => Atom::Exactly(*c),
        });
    }
    atoms
}

/// The set that begins behind a bracket, and how long it is; none where the bracket is not closed. A closing bracket in
/// the first place belongs to the set.
fn set(rest: &[char]) -> Option<(usize, Atom)> {
    let negated = rest.first() == Some(&'^');
    let first = usize::from(negated);
    let length = first + 1 + rest.get(first + 1..)?.iter().position(|c| *c == ']')?;
    let mut inside = &rest[first..length];
    let mut ranges = Vec::new();
    loop {
        inside = match inside {
            [low, '-', high, rest @ ..] => {
                ranges.push((*low, *high));
                rest
            }
            [only, rest @ ..] => {
                ranges.push((*only, *only));
                rest
            }
            [] => return Some((length + 1, Atom::Set { ranges, negated })),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_fit_whole_texts() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("", "a", false),
            ("%", "", true),
            ("%-%", "3F2A-9B0C", true),
            ("Virtual%", "virtual machine", true),
            ("%machine", "Virtual Machines", false),
            ("_bc", "abc", true),
            ("_", "", false),
            ("[a-c]x", "Bx", true),
            ("[a-c]x", "dx", false),
            ("[^a-c]x", "dx", true),
            ("[^a-c]x", "ax", false),
            ("[%]", "%", true),
            ("[%]", "x", false),
            ("[]]", "]", true),
            ("[", "[", true),
            ("[]", "[]", true),
            ("50[%] off", "50% off", true),
            ("%a%b%c", "xxaxxbxxcxxc", true),
            ("Ä%", "ärger", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn no_pattern_takes_forever() {
        let start = std::time::Instant::now();
        assert!(!matches(&"%a".repeat(2000), &"a".repeat(1999)));
        assert!(!matches(&("%a".repeat(500) + "b"), &"a".repeat(20_000)));
        assert!(start.elapsed().as_secs() < 10);
    }
}
