//! The grammar of queries.

use super::condition::{Comparison, Condition, Operand};
use super::lex::{Token, is_word, tokens};
use super::{MAX_DEPTH, MAX_TEXT, Query, Related, Select};
use crate::syntax::Fault;
use crate::{Name, Value, path};

pub(super) fn query(text: &str) -> Result<Query, Fault> {
    if text.len() > MAX_TEXT {
        return Err(Fault::new(0, format!("the query has more than {MAX_TEXT} bytes")));
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0, range: None };
    let query = if parser.passed("select") {
        Query::Select(parser.select()?)
    } else if parser.passed("associators") {
        Query::Related(parser.related(false)?)
    } else if parser.passed("references") {
        Query::Related(parser.related(true)?)
    } else {
        return Err(parser.expected("SELECT, ASSOCIATORS OF or REFERENCES OF"));
    };
    match parser.token() {
        Token::End => Ok(query),
        _ => Err(parser.expected("the end")),
    }
}

/// Tokens, of which the last is the end and is never passed.
struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
    /// What a property may be qualified with: the class or its alias.
    range: Option<[Name; 2]>,
}

impl Parser {
    fn token(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn at(&self) -> usize {
        self.tokens[self.next].0
    }

    fn advance(&mut self) {
        if self.next + 1 < self.tokens.len() {
            self.next += 1;
        }
    }

    fn expected(&self, what: &str) -> Fault {
        Fault::new(self.at(), format!("expected {what}, found {}", self.token().named()))
    }

    fn is(&self, keyword: &str) -> bool {
        matches!(self.token(), Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// True, and past it, when the keyword is at hand.
    fn passed(&mut self, keyword: &str) -> bool {
        let there = self.is(keyword);
        if there {
            self.advance();
        }
        there
    }

    fn keyword(&mut self, keyword: &str) -> Result<(), Fault> {
        if self.passed(keyword) { Ok(()) } else { Err(self.expected(&keyword.to_ascii_uppercase())) }
    }

    fn passed_mark(&mut self, mark: &str) -> bool {
        let there = matches!(self.token(), Token::Mark(found) if *found == mark);
        if there {
            self.advance();
        }
        there
    }

    fn name(&mut self, what: &str) -> Result<Name, Fault> {
        let Token::Word(word) = self.token() else { return Err(self.expected(what)) };
        let name = Name::from(word.as_str());
        self.advance();
        Ok(name)
    }

    /// A name that some clients put in quotes.
    fn name_or_text(&mut self, what: &str) -> Result<Name, Fault> {
        match self.token() {
            Token::Text(text) if is_word(text) => {
                let name = Name::from(text.as_str());
                self.advance();
                Ok(name)
            }
            _ => self.name(what),
        }
    }

    fn select(&mut self) -> Result<Select, Fault> {
        let columns_at = self.next;
        // Columns may be qualified with an alias that is declared behind them.
        while !self.is("from") && *self.token() != Token::End {
            self.advance();
        }
        self.keyword("from")?;
        let class_at = self.at();
        let class = self.name("the name of a class")?;
        if class == "meta_class" {
            return Err(Fault::new(class_at, "queries for classes are not answered here"));
        }
        let clause = |parser: &Self| ["where", "within", "group", "order"].iter().any(|word| parser.is(word));
        let alias = if self.passed("as") || matches!(self.token(), Token::Word(_)) && !clause(self) {
            self.name("an alias")?
        } else {
            class.clone()
        };
        self.range = Some([class.clone(), alias]);
        let behind = std::mem::replace(&mut self.next, columns_at);
        let columns = self.columns()?;
        if !self.is("from") {
            return Err(self.expected("`,` or FROM"));
        }
        self.next = behind;
        let within = if self.passed("within") { Some(self.seconds()?) } else { None };
        let condition = if self.passed("where") { Some(self.any()?) } else { None };
        if self.is("group") {
            return Err(Fault::new(self.at(), "events are not gathered into groups here"));
        }
        Ok(Select { class, columns, within, condition })
    }

    /// The seconds behind `WITHIN`.
    fn seconds(&mut self) -> Result<f64, Fault> {
        let seconds = match self.token() {
            Token::Number(Value::Real64(number)) => Some(*number),
            Token::Number(number) => number.as_u64().map(|number| number as f64),
            _ => None,
        };
        let seconds = seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
        let seconds = seconds.ok_or_else(|| self.expected("a number of seconds"))?;
        self.advance();
        Ok(seconds)
    }

    /// `*`, or a list of names; none for all.
    fn columns(&mut self) -> Result<Option<Vec<Name>>, Fault> {
        let mut columns: Vec<Name> = Vec::new();
        let mut all = false;
        loop {
            if self.is("from") {
                return Err(self.expected("`*` or the name of a property"));
            } else if self.passed_mark("*") {
                all = true;
            } else {
                let mut name = self.name("`*` or the name of a property")?;
                if self.is_range(&name) && self.passed_mark(".") {
                    if self.passed_mark("*") {
                        all = true;
                    } else {
                        name = self.member()?;
                    }
                }
                if !all && !columns.contains(&name) {
                    columns.push(name);
                }
            }
            if !self.passed_mark(",") {
                return Ok(if all { None } else { Some(columns) });
            }
        }
    }

    /// The name of a property behind the class or its alias. Some would mean something else without that.
    fn member(&mut self) -> Result<Name, Fault> {
        let at = self.at();
        let name = self.name("the name of a property")?;
        let reserved = ["from", "not", "null", "true", "false"].iter().any(|word| name == *word);
        if reserved || self.is_range(&name) {
            return Err(Fault::new(at, format!("`{name}` is no name of a property here")));
        }
        Ok(name)
    }

    fn is_range(&self, name: &Name) -> bool {
        self.range.as_ref().is_some_and(|range| range.contains(name))
    }

    fn any(&mut self) -> Result<Condition, Fault> {
        let mut all = vec![self.all()?];
        while self.passed("or") {
            all.push(self.all()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::Any(all) })
    }

    fn all(&mut self) -> Result<Condition, Fault> {
        let mut all = vec![self.one()?];
        while self.passed("and") {
            all.push(self.one()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::All(all) })
    }

    fn one(&mut self) -> Result<Condition, Fault> {
        let at = self.at();
        let not = self.passed("not");
        let parenthesis = !not && self.passed_mark("(");
        if !not && !parenthesis {
            return self.comparison();
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Fault::new(at, format!("conditions are nested more than {MAX_DEPTH} deep")));
        }
        let condition = if not { Condition::Not(Box::new(self.one()?)) } else { self.any()? };
        if parenthesis && !self.passed_mark(")") {
            return Err(self.expected("`)`, AND or OR"));
        }
        self.depth -= 1;
        Ok(condition)
    }

    fn comparison(&mut self) -> Result<Condition, Fault> {
        let left_at = self.at();
        let left = self.operand()?;
        if self.passed("is") {
            let not = self.passed("not");
            self.keyword("null")?;
            return Ok(null(left, not));
        }
        if self.passed("isa") {
            let Operand::Property(names) = left else {
                return Err(Fault::new(left_at, "a property or __THIS stands before ISA"));
            };
            return Ok(Condition::Isa(names, self.name_or_text("the name of a class")?));
        }
        let negated = self.passed("not");
        if self.passed("like") {
            let Token::Text(pattern) = self.token() else { return Err(self.expected("a pattern in quotes")) };
            let like = Condition::Like(left, pattern.clone());
            self.advance();
            return Ok(if negated { Condition::Not(Box::new(like)) } else { like });
        }
        let comparison = match self.token() {
            Token::Mark(mark) if !negated => Comparison::of(mark),
            _ => None,
        };
        let Some(comparison) = comparison else {
            return Err(self.expected(if negated { "LIKE" } else { "a comparison" }));
        };
        self.advance();
        let right_at = self.at();
        let right = self.operand()?;
        // WQL has this for IS NULL.
        let operand = match (left, right) {
            (Operand::Null, other) | (other, Operand::Null) => other,
            (left, right) => return Ok(Condition::Compare(left, comparison, right)),
        };
        match comparison {
            Comparison::Equal => Ok(null(operand, false)),
            Comparison::Unequal => Ok(null(operand, true)),
            _ => Err(Fault::new(right_at, "NULL is neither more nor less than anything")),
        }
    }

    fn operand(&mut self) -> Result<Operand, Fault> {
        let operand = match self.token() {
            Token::Text(text) => Operand::Value(Value::from(text.as_str())),
            Token::Number(number) => Operand::Value(number.clone()),
            Token::Word(word) if word.eq_ignore_ascii_case("true") => Operand::Value(true.into()),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => Operand::Value(false.into()),
            Token::Word(word) if word.eq_ignore_ascii_case("null") => Operand::Null,
            Token::Word(_) => {
                let mut names = vec![self.name("a name")?];
                if self.is_range(&names[0]) {
                    names[0] = if self.passed_mark(".") { self.member()? } else { Name::from("__THIS") };
                }
                while self.passed_mark(".") {
                    names.push(self.name("the name of a property")?);
                    if names.len() > MAX_DEPTH {
                        return Err(Fault::new(self.at(), "too many points"));
                    }
                }
                return Ok(Operand::Property(names));
            }
            _ => return Err(self.expected("a property, a text in quotes or a number")),
        };
        self.advance();
        Ok(operand)
    }

    fn related(&mut self, references: bool) -> Result<Related, Fault> {
        self.keyword("of")?;
        let Token::Braces(at, text) = self.token() else {
            return Err(self.expected("`{` and an object path"));
        };
        let path = path::read(text).map_err(|fault| Fault::new(at + fault.at, fault.problem))?;
        let mut related = Related::new(path, references);
        self.advance();
        if !self.passed("where") {
            return Ok(related);
        }
        if *self.token() == Token::End {
            return Err(self.expected("a condition"));
        }
        while let Token::Word(word) = self.token() {
            let (at, word) = (self.at(), word.to_ascii_lowercase());
            self.advance();
            let twice = || Fault::new(at, format!("{word} stands here twice"));
            let only_associators = || {
                let problem = format!("{word} is no condition of REFERENCES OF");
                if references { Err(Fault::new(at, problem)) } else { Ok(()) }
            };
            let place = match word.as_str() {
                "classdefsonly" | "keysonly" => {
                    let flag = match word.as_str() {
                        "keysonly" => &mut related.keys_only,
                        _ => &mut related.classes_only,
                    };
                    if std::mem::replace(flag, true) {
                        return Err(twice());
                    }
                    continue;
                }
                "schemaonly" => return Err(Fault::new(at, "queries for classes are not answered here")),
                "resultclass" => &mut related.result,
                "role" => &mut related.role,
                "requiredqualifier" => &mut related.required_qualifier,
                "assocclass" => {
                    only_associators()?;
                    &mut related.association
                }
                "resultrole" => {
                    only_associators()?;
                    &mut related.result_role
                }
                "requiredassocqualifier" => {
                    only_associators()?;
                    &mut related.required_association_qualifier
                }
                "and" => {
                    return Err(Fault::new(at, "conditions stand here one after the other, without AND"));
                }
                _ => {
                    let known = "AssocClass, ResultClass, Role, ResultRole, RequiredQualifier, \
                                 RequiredAssocQualifier, ClassDefsOnly or KeysOnly";
                    return Err(Fault::new(at, format!("expected {known}, found `{word}`")));
                }
            };
            if place.is_some() {
                return Err(twice());
            }
            if !self.passed_mark("=") {
                return Err(self.expected("`=`"));
            }
            *place = Some(self.name_or_text("a name")?);
        }
        Ok(related)
    }
}

fn null(operand: Operand, not: bool) -> Condition {
    let null = Condition::Null(operand);
    if not { Condition::Not(Box::new(null)) } else { null }
}
