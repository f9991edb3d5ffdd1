//! MOF declarations as they stand in the text; what they mean together is for `compile` and `instance`.

use std::borrow::Cow;

use super::lex::{Lexer, Token};
use super::{MAX_DECLARATIONS, MAX_DEPTH, MAX_MEMBERS, MAX_TEXT};
use crate::Type;
use crate::syntax::Fault;

/// One declaration of a text.
#[derive(Debug)]
pub(super) enum Declaration<'t> {
    Qualifier(QualifierDeclaration<'t>),
    Class(ClassDeclaration<'t>),
    Instance(InstanceDeclaration<'t>),
}

#[derive(Debug)]
pub(super) struct QualifierDeclaration<'t> {
    pub(super) at: usize,
    pub(super) name: &'t str,
    pub(super) ty: Type,
    pub(super) array: bool,
    pub(super) default: Option<Literal<'t>>,
    pub(super) scopes: Vec<&'t str>,
    pub(super) flavor: Flavor,
}

/// How a qualifier behaves in subclasses, as far as the text says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flavor {
    /// `Restricted` (false) or `ToSubclass` (true).
    pub(super) inherited: Option<bool>,
    /// `DisableOverride` (false) or `EnableOverride` (true).
    pub(super) overridable: Option<bool>,
    /// `Translatable`.
    pub(super) translatable: bool,
}

#[derive(Debug)]
pub(super) struct ClassDeclaration<'t> {
    pub(super) at: usize,
    pub(super) name: &'t str,
    pub(super) superclass: Option<(usize, &'t str)>,
    pub(super) qualifiers: Vec<QualifierUse<'t>>,
    pub(super) features: Vec<Feature<'t>>,
}

#[derive(Debug)]
pub(super) struct QualifierUse<'t> {
    pub(super) at: usize,
    pub(super) name: &'t str,
    pub(super) value: Option<Literal<'t>>,
}

/// A property, reference, method or parameter.
#[derive(Debug)]
pub(super) struct Feature<'t> {
    pub(super) at: usize,
    pub(super) name: &'t str,
    pub(super) ty: Type,
    pub(super) array: bool,
    pub(super) qualifiers: Vec<QualifierUse<'t>>,
    pub(super) default: Option<Literal<'t>>,
    /// Of a method its parameters; none for the others.
    pub(super) parameters: Option<Vec<Feature<'t>>>,
}

#[derive(Debug)]
pub(super) struct InstanceDeclaration<'t> {
    pub(super) at: usize,
    pub(super) class: &'t str,
    pub(super) alias: Option<&'t str>,
    pub(super) properties: Vec<(usize, &'t str, Literal<'t>)>,
}

/// A value as it is spelled; what type it is of, the declaration says.
#[derive(Debug)]
pub(super) struct Literal<'t> {
    pub(super) at: usize,
    pub(super) kind: LiteralKind<'t>,
}

#[derive(Debug)]
pub(super) enum LiteralKind<'t> {
    Null,
    Boolean(bool),
    Integer(i128),
    Real(f64),
    Char(u16),
    Text(Cow<'t, str>),
    Alias(&'t str),
    Array(Vec<Literal<'t>>),
    Instance(Box<InstanceDeclaration<'t>>),
}

/// Reads declarations one after the other.
#[derive(Debug)]
pub(super) struct Parser<'t> {
    lexer: Lexer<'t>,
    /// The token at hand, and where it begins.
    token: Token<'t>,
    at: usize,
    seen: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    pub(super) fn new(text: &'t str) -> Result<Self, Fault> {
        if text.len() > MAX_TEXT {
            return Err(Fault::new(0, format!("the text has more than {MAX_TEXT} bytes")));
        }
        let mut lexer = Lexer::new(text);
        let (at, token) = lexer.token()?;
        Ok(Self { lexer, token, at, seen: 0, depth: 0 })
    }

    /// The next declaration; none behind the last.
    pub(super) fn declaration(&mut self) -> Result<Option<Declaration<'t>>, Fault> {
        while self.token == Token::Mark('#') {
            self.pragma()?;
        }
        if self.token == Token::End {
            return Ok(None);
        }
        self.seen += 1;
        if self.seen > MAX_DECLARATIONS {
            return Err(Fault::new(self.at, format!("there are more than {MAX_DECLARATIONS} declarations")));
        }
        if self.is_word("qualifier") {
            return self.qualifier_declaration().map(Declaration::Qualifier).map(Some);
        }
        let qualifiers = self.qualifiers()?;
        if self.is_word("class") {
            self.class(qualifiers).map(Declaration::Class).map(Some)
        } else if self.is_word("instance") {
            let instance = self.instance()?;
            // Scripts send one instance and sometimes leave its semicolon out.
            if self.token != Token::End {
                self.mark(';')?;
            }
            Ok(Some(Declaration::Instance(instance)))
        } else {
            Err(self.expected("`class`, `instance`, `Qualifier` or `#pragma`"))
        }
    }

    fn advance(&mut self) -> Result<Token<'t>, Fault> {
        let (at, next) = self.lexer.token()?;
        self.at = at;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn expected(&self, what: &str) -> Fault {
        Fault::new(self.at, format!("expected {what}, found {}", self.token.named()))
    }

    fn is_word(&self, keyword: &str) -> bool {
        matches!(self.token, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn keyword(&mut self, keyword: &str) -> Result<(), Fault> {
        if !self.is_word(keyword) {
            return Err(self.expected(&format!("`{keyword}`")));
        }
        self.advance().map(drop)
    }

    fn mark(&mut self, mark: char) -> Result<(), Fault> {
        if self.token != Token::Mark(mark) {
            return Err(self.expected(&format!("`{mark}`")));
        }
        self.advance().map(drop)
    }

    /// True, and past it, when `mark` is at hand.
    fn passed(&mut self, mark: char) -> Result<bool, Fault> {
        let there = self.token == Token::Mark(mark);
        if there {
            self.advance()?;
        }
        Ok(there)
    }

    fn name(&mut self, what: &str) -> Result<(usize, &'t str), Fault> {
        let at = self.at;
        match self.token {
            Token::Word(word) => self.advance().map(|_| (at, word)),
            _ => Err(self.expected(what)),
        }
    }

    /// Adds to a list that has a limit.
    fn push<T>(&self, list: &mut Vec<T>, item: T) -> Result<(), Fault> {
        if list.len() >= MAX_MEMBERS {
            return Err(Fault::new(self.at, format!("there are more than {MAX_MEMBERS} here")));
        }
        list.push(item);
        Ok(())
    }

    fn pragma(&mut self) -> Result<(), Fault> {
        self.mark('#')?;
        self.keyword("pragma")?;
        let (at, name) = self.name("the name of a pragma")?;
        if name.eq_ignore_ascii_case("include") {
            return Err(Fault::new(
                at,
                "`#pragma include` is not read here: give the files one after the other",
            ));
        }
        if self.passed('(')? {
            while !self.passed(')')? {
                if self.token == Token::End {
                    return Err(self.expected("`)`"));
                }
                self.advance()?;
            }
        }
        Ok(())
    }

    fn qualifier_declaration(&mut self) -> Result<QualifierDeclaration<'t>, Fault> {
        self.keyword("qualifier")?;
        let (at, name) = self.name("the name of a qualifier")?;
        self.mark(':')?;
        let (type_at, keyword) = self.name("a type")?;
        let ty = Type::from_keyword(keyword)
            .ok_or_else(|| Fault::new(type_at, format!("`{keyword}` is no type of a qualifier")))?;
        let array = self.array()?;
        let default = if self.passed('=')? { Some(self.literal()?) } else { None };
        let (mut flavor, mut scopes) = (Flavor::default(), Vec::new());
        while self.passed(',')? {
            let (clause_at, clause) = self.name("`Scope` or `Flavor`")?;
            self.mark('(')?;
            loop {
                let (_, word) = self.name("a word")?;
                if clause.eq_ignore_ascii_case("flavor") {
                    flavor.add(word);
                } else if clause.eq_ignore_ascii_case("scope") {
                    self.push(&mut scopes, word)?;
                } else {
                    return Err(Fault::new(
                        clause_at,
                        format!("expected `Scope` or `Flavor`, found `{clause}`"),
                    ));
                }
                if !self.passed(',')? {
                    break;
                }
            }
            self.mark(')')?;
        }
        self.mark(';')?;
        Ok(QualifierDeclaration { at, name, ty, array, default, scopes, flavor })
    }

    /// `[]` or `[7]`, if there; the length has no effect.
    fn array(&mut self) -> Result<bool, Fault> {
        if !self.passed('[')? {
            return Ok(false);
        }
        if matches!(self.token, Token::Integer(_)) {
            self.advance()?;
        }
        self.mark(']')?;
        Ok(true)
    }

    /// A list in brackets, if there.
    fn qualifiers(&mut self) -> Result<Vec<QualifierUse<'t>>, Fault> {
        let mut list = Vec::new();
        if !self.passed('[')? {
            return Ok(list);
        }
        loop {
            let (at, name) = self.name("the name of a qualifier")?;
            let value = match self.token {
                Token::Mark('(') => {
                    self.advance()?;
                    let value = self.literal()?;
                    self.mark(')')?;
                    Some(value)
                }
                Token::Mark('{') => Some(self.literal()?),
                _ => None,
            };
            // Flavours of one use, which WMI prints everywhere, are those of the declaration or change nothing here.
            if self.passed(':')? {
                while matches!(self.token, Token::Word(_)) {
                    self.advance()?;
                }
            }
            self.push(&mut list, QualifierUse { at, name, value })?;
            if !self.passed(',')? {
                self.mark(']')?;
                return Ok(list);
            }
        }
    }

    fn class(&mut self, qualifiers: Vec<QualifierUse<'t>>) -> Result<ClassDeclaration<'t>, Fault> {
        self.keyword("class")?;
        let (at, name) = self.name("the name of a class")?;
        self.alias()?;
        let superclass =
            if self.passed(':')? { Some(self.name("the name of the superclass")?) } else { None };
        self.mark('{')?;
        let mut features = Vec::new();
        while !self.passed('}')? {
            let feature = self.feature()?;
            self.push(&mut features, feature)?;
        }
        self.mark(';')?;
        Ok(ClassDeclaration { at, name, superclass, qualifiers, features })
    }

    /// `as $Name`, if there.
    fn alias(&mut self) -> Result<Option<&'t str>, Fault> {
        if !self.is_word("as") {
            return Ok(None);
        }
        self.advance()?;
        match self.token {
            Token::Alias(name) => self.advance().map(|_| Some(name)),
            _ => Err(self.expected("an alias, as `$Name`")),
        }
    }

    /// What properties, methods and parameters begin with: qualifiers, type, name, and whether it is an array.
    fn typed(&mut self) -> Result<Feature<'t>, Fault> {
        let qualifiers = self.qualifiers()?;
        let (type_at, keyword) = self.name("a type, or `}`")?;
        let ty = if self.is_word("ref") {
            self.advance()?;
            Type::Reference(keyword.into())
        } else {
            Type::from_keyword(keyword).ok_or_else(|| {
                Fault::new(type_at, format!("`{keyword}` is no type; references are written `{keyword} REF`"))
            })?
        };
        let (at, name) = self.name("a name")?;
        let array = self.array()?;
        Ok(Feature { at, name, ty, array, qualifiers, default: None, parameters: None })
    }

    fn feature(&mut self) -> Result<Feature<'t>, Fault> {
        let mut feature = self.typed()?;
        if !feature.array && self.passed('(')? {
            let mut parameters = Vec::new();
            while self.token != Token::Mark(')') {
                let parameter = self.typed()?;
                self.push(&mut parameters, parameter)?;
                if !self.passed(',')? {
                    break;
                }
            }
            self.mark(')')?;
            feature.parameters = Some(parameters);
        } else if self.passed('=')? {
            feature.default = Some(self.literal()?);
        }
        self.mark(';')?;
        Ok(feature)
    }

    fn instance(&mut self) -> Result<InstanceDeclaration<'t>, Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Fault::new(self.at, format!("instances are nested more than {MAX_DEPTH} deep")));
        }
        self.keyword("instance")?;
        self.keyword("of")?;
        let (at, class) = self.name("the name of a class")?;
        let alias = self.alias()?;
        self.mark('{')?;
        let mut properties = Vec::new();
        while !self.passed('}')? {
            // WMI prints qualifiers of an instance's properties; they say nothing that the class does not.
            self.qualifiers()?;
            let (property_at, name) = self.name("the name of a property, or `}`")?;
            self.mark('=')?;
            let value = self.literal()?;
            self.mark(';')?;
            self.push(&mut properties, (property_at, name, value))?;
        }
        self.depth -= 1;
        Ok(InstanceDeclaration { at, class, alias, properties })
    }

    fn literal(&mut self) -> Result<Literal<'t>, Fault> {
        let at = self.at;
        if !self.passed('{')? {
            return self.scalar();
        }
        let mut elements = Vec::new();
        while self.token != Token::Mark('}') {
            let element = self.scalar()?;
            self.push(&mut elements, element)?;
            if !self.passed(',')? {
                break;
            }
        }
        self.mark('}')?;
        Ok(Literal { at, kind: LiteralKind::Array(elements) })
    }

    fn scalar(&mut self) -> Result<Literal<'t>, Fault> {
        let at = self.at;
        if self.is_word("instance") {
            let kind = LiteralKind::Instance(Box::new(self.instance()?));
            return Ok(Literal { at, kind });
        }
        let kind = match &self.token {
            Token::Word(word) if word.eq_ignore_ascii_case("null") => LiteralKind::Null,
            Token::Word(word) if word.eq_ignore_ascii_case("true") => LiteralKind::Boolean(true),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => LiteralKind::Boolean(false),
            Token::Integer(number) => LiteralKind::Integer(*number),
            Token::Real(number) => LiteralKind::Real(*number),
            Token::Char(unit) => LiteralKind::Char(*unit),
            Token::Alias(name) => LiteralKind::Alias(name),
            Token::Text(_) => return self.text(),
            _ => return Err(self.expected("a value")),
        };
        self.advance()?;
        Ok(Literal { at, kind })
    }

    /// Texts one after the other are one.
    fn text(&mut self) -> Result<Literal<'t>, Fault> {
        let at = self.at;
        let mut whole = Cow::Borrowed("");
        while matches!(self.token, Token::Text(_)) {
            let Token::Text(piece) = self.advance()? else { break };
            if whole.is_empty() {
                whole = piece;
            } else {
                whole.to_mut().push_str(&piece);
            }
        }
        Ok(Literal { at, kind: LiteralKind::Text(whole) })
    }
}

impl Flavor {
    /// Adds a word of a flavor list. WMI's own, which decide nothing here, are let through.
    fn add(&mut self, word: &str) {
        match word.to_ascii_lowercase().as_str() {
            "restricted" => self.inherited = Some(false),
            "tosubclass" => self.inherited = Some(true),
            "disableoverride" => self.overridable = Some(false),
            "enableoverride" => self.overridable = Some(true),
            "translatable" => self.translatable = true,
            _ => {}
        }
    }
}
