//! Declarations become a schema: qualifiers get their types, classes what they inherit.

use std::collections::HashMap;

use super::literal::{self, Surroundings};
use super::parse::{
    ClassDeclaration, Declaration, Feature, InstanceDeclaration, Parser, QualifierDeclaration, QualifierUse,
};
use crate::syntax::Fault;
use crate::{
    Class, Instance, Method, Name, ObjectPath, Parameter, Property, Qualifier, QualifierType, Schema,
    SchemaError, SyntaxError, Type, Value,
};

/// Reads MOF files in their order, and makes one schema of them.
#[derive(Debug, Default)]
pub struct Compiler {
    qualifiers: HashMap<Name, QualifierType>,
    classes: Vec<Class>,
    /// Places in `classes`.
    by_name: HashMap<Name, usize>,
}

/// Declarations of classes name nothing else in their values.
struct Nothing;

impl<'t> Surroundings<'t> for Nothing {
    fn alias(&self, _: &str) -> Option<ObjectPath> {
        None
    }

    fn instance(&self, instance: &InstanceDeclaration<'t>) -> Result<Instance, Fault> {
        Err(Fault::new(instance.at, "an instance is no value of a declaration"))
    }
}

impl Compiler {
    /// One that knows no qualifier and no class.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a text. Qualifiers are declared before they are used, superclasses before their subclasses, in this text or
    /// in one before.
    ///
    /// # Errors
    /// The text is no MOF, or declares what it must not; the place is in the error, with `file` as the file's name. What
    /// was read before the place stays.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), SyntaxError> {
        self.read(text).map_err(|fault| SyntaxError { file: Some(file.to_owned()), ..fault.within(text) })
    }

    /// The schema of everything read.
    ///
    /// # Errors
    /// A class refers to one that was not declared, be it by a reference or by an instance inside a value.
    pub fn finish(self) -> Result<Schema, SchemaError> {
        let mut qualifiers: Vec<_> = self.qualifiers.into_values().collect();
        qualifiers.sort_by(|one, other| one.name.cmp(&other.name));
        let schema = Schema::with_qualifiers(self.classes, qualifiers)?;
        schema.check_references()?;
        Ok(schema)
    }

    fn read(&mut self, text: &str) -> Result<(), Fault> {
        let mut parser = Parser::new(text)?;
        while let Some(declaration) = parser.declaration()? {
            match declaration {
                Declaration::Qualifier(qualifier) => self.declare(qualifier)?,
                Declaration::Class(class) => self.class(class)?,
                Declaration::Instance(instance) => {
                    return Err(Fault::new(instance.at, "a schema has classes, not instances"));
                }
            }
        }
        Ok(())
    }

    fn declare(&mut self, declaration: QualifierDeclaration<'_>) -> Result<(), Fault> {
        let QualifierDeclaration { at, name, ty, array, default, scopes, flavor } = declaration;
        let name = Name::from(name);
        let default =
            default.map(|default| literal::value(&default, &ty, array, &Nothing)).transpose()?.flatten();
        let declared = QualifierType {
            name: name.clone(),
            ty,
            array,
            default,
            inherited: flavor.inherited.unwrap_or(true),
            overridable: flavor.overridable.unwrap_or(true),
            translatable: flavor.translatable,
            scopes: scopes.into_iter().map(str::to_ascii_lowercase).collect(),
        };
        match self.qualifiers.insert(name, declared) {
            Some(before) => Err(Fault::new(at, format!("qualifier {} is declared twice", before.name))),
            None => Ok(()),
        }
    }

    fn class(&mut self, declaration: ClassDeclaration<'_>) -> Result<(), Fault> {
        let ClassDeclaration { at, name, superclass, qualifiers, features } = declaration;
        let mut class = Class {
            name: name.into(),
            superclass: None,
            qualifiers: self.uses(qualifiers)?,
            properties: Vec::new(),
            methods: Vec::new(),
        };
        if let Some((superclass_at, superclass)) = superclass {
            let Some(place) = self.by_name.get(&Name::from(superclass)) else {
                return Err(Fault::new(
                    superclass_at,
                    format!("class {superclass} is not declared before this"),
                ));
            };
            let above = &self.classes[*place];
            class.superclass = Some(above.name.clone());
            class.properties.clone_from(&above.properties);
            class.methods.clone_from(&above.methods);
            self.inherit(at, &mut class.qualifiers, &above.qualifiers)?;
        }
        for feature in features {
            if feature.parameters.is_some() {
                self.method(&mut class, feature)?;
            } else {
                self.property(&mut class, feature)?;
            }
        }
        if self.by_name.insert(class.name.clone(), self.classes.len()).is_some() {
            return Err(Fault::new(at, format!("class {name} is declared twice")));
        }
        self.classes.push(class);
        Ok(())
    }

    fn property(&self, class: &mut Class, feature: Feature<'_>) -> Result<(), Fault> {
        let Feature { at, name, ty, array, qualifiers, default, .. } = feature;
        let mut qualifiers = self.uses(qualifiers)?;
        let ty = carried(ty, &qualifiers);
        let default =
            default.map(|default| literal::value(&default, &ty, array, &Nothing)).transpose()?.flatten();
        let place = class.properties.iter().position(|property| property.name == name);
        let overrides = overrides(&qualifiers);
        match place {
            Some(place) => {
                let above = &class.properties[place];
                check_override(at, class, &above.origin, &above.name, overrides)?;
                self.inherit(at, &mut qualifiers, &above.qualifiers)?;
                let property = Property {
                    name: above.name.clone(),
                    ty,
                    array,
                    default: default.or_else(|| above.default.clone()),
                    qualifiers,
                    origin: class.name.clone(),
                };
                class.properties[place] = property;
            }
            None if overrides => {
                return Err(Fault::new(
                    at,
                    format!("{} inherits no property {name} to override", class.name),
                ));
            }
            None => class.properties.push(Property {
                name: name.into(),
                ty,
                array,
                default,
                qualifiers,
                origin: class.name.clone(),
            }),
        }
        Ok(())
    }

    fn method(&self, class: &mut Class, feature: Feature<'_>) -> Result<(), Fault> {
        let Feature { at, name, ty, qualifiers, parameters, .. } = feature;
        let mut qualifiers = self.uses(qualifiers)?;
        let mut read: Vec<Parameter> = Vec::new();
        for parameter in parameters.unwrap_or_default() {
            let Feature { at, name, ty, array, qualifiers, .. } = parameter;
            if read.iter().any(|before| before.name == name) {
                return Err(Fault::new(at, format!("parameter {name} is declared twice")));
            }
            let qualifiers = self.uses(qualifiers)?;
            let direction = |name: &str, absent| {
                let found = qualifiers.iter().find(|qualifier| qualifier.name == name);
                found.and_then(|qualifier| qualifier.value.as_bool()).unwrap_or(absent)
            };
            // DSP0004, 5.6.3.26 and 5.6.3.39: a parameter is an input unless it says that it is not.
            let (input, output) = (direction("In", true), direction("Out", false));
            let ty = carried(ty, &qualifiers);
            read.push(Parameter { name: name.into(), ty, array, input, output, qualifiers });
        }
        let place = class.methods.iter().position(|method| method.name == name);
        let overrides = overrides(&qualifiers);
        let mut method = Method {
            name: name.into(),
            returns: ty,
            parameters: read,
            qualifiers: Vec::new(),
            origin: class.name.clone(),
        };
        match place {
            Some(place) => {
                let above = &class.methods[place];
                check_override(at, class, &above.origin, &above.name, overrides)?;
                self.inherit(at, &mut qualifiers, &above.qualifiers)?;
                method.qualifiers = qualifiers;
                class.methods[place] = method;
            }
            None if overrides => {
                return Err(Fault::new(at, format!("{} inherits no method {name} to override", class.name)));
            }
            None => {
                method.qualifiers = qualifiers;
                class.methods.push(method);
            }
        }
        Ok(())
    }

    /// The qualifiers that stand in the text, with their types.
    fn uses(&self, uses: Vec<QualifierUse<'_>>) -> Result<Vec<Qualifier>, Fault> {
        let mut qualifiers: Vec<Qualifier> = Vec::with_capacity(uses.len());
        for QualifierUse { at, name, value } in uses {
            let Some(declared) = self.qualifiers.get(&Name::from(name)) else {
                return Err(Fault::new(at, format!("qualifier {name} is not declared before this")));
            };
            if qualifiers.iter().any(|qualifier| qualifier.name == declared.name) {
                return Err(Fault::new(at, format!("qualifier {name} stands here twice")));
            }
            let value = match value {
                Some(value) => literal::value(&value, &declared.ty, declared.array, &Nothing)?,
                None if declared.ty == Type::Boolean && !declared.array => Some(Value::Boolean(true)),
                None => declared.default.clone(),
            };
            let value = value.ok_or_else(|| Fault::new(at, format!("qualifier {name} needs a value")))?;
            qualifiers.push(Qualifier { name: declared.name.clone(), value });
        }
        Ok(qualifiers)
    }

    /// Adds to `qualifiers` what comes from `above`.
    fn inherit(&self, at: usize, qualifiers: &mut Vec<Qualifier>, above: &[Qualifier]) -> Result<(), Fault> {
        for from_above in above {
            let Some(declared) = self.qualifiers.get(&from_above.name).filter(|declared| declared.inherited)
            else {
                continue;
            };
            match qualifiers.iter().find(|own| own.name == from_above.name) {
                None => qualifiers.push(from_above.clone()),
                Some(own) if !declared.overridable && own.value != from_above.value => {
                    return Err(Fault::new(at, format!("qualifier {} cannot be changed below", own.name)));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// What a string is that has WMI's qualifier for what it carries.
fn carried(ty: Type, qualifiers: &[Qualifier]) -> Type {
    let cim_type = qualifiers.iter().find(|qualifier| qualifier.name == "CIMType");
    let Some(carried) =
        cim_type.and_then(|qualifier| qualifier.value.as_str()).filter(|_| ty == Type::String)
    else {
        return ty;
    };
    match carried.split_once(':') {
        Some(("object", class)) => Type::Object(Some(class.into())),
        Some(("ref", class)) => Type::Reference(class.into()),
        None if carried == "object" => Type::Object(None),
        _ => ty,
    }
}

/// True when a member says that it takes the place of an inherited one. WMI knows only those of the same name.
fn overrides(qualifiers: &[Qualifier]) -> bool {
    qualifiers.iter().any(|qualifier| qualifier.name == "Override")
}

fn check_override(
    at: usize,
    class: &Class,
    origin: &Name,
    name: &Name,
    overrides: bool,
) -> Result<(), Fault> {
    if *origin == class.name {
        Err(Fault::new(at, format!("{name} is declared twice in {}", class.name)))
    } else if !overrides {
        Err(Fault::new(
            at,
            format!("{name} is inherited from {origin}; put [Override(\"{name}\")] before it"),
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Compiler;
    use crate::{Datetime, Schema, Type, Value};

    const QUALIFIERS: &str = r#"
        #pragma locale ("en_US")
        #pragma namespace ("root/test")
        Qualifier Abstract : boolean = false, Scope(class, association, indication), Flavor(EnableOverride, Restricted);
        Qualifier Association : boolean = false, Scope(association), Flavor(DisableOverride, ToSubclass);
        Qualifier CIMType : string = null, Scope(property, parameter);
        Qualifier Description : string = null, Scope(any), Flavor(Translatable);
        Qualifier EmbeddedInstance : string = null, Scope(property, method, parameter);
        Qualifier In : boolean = true, Scope(parameter), Flavor(DisableOverride);
        Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride, ToSubclass);
        Qualifier MaxLen : uint32 = null, Scope(property, method, parameter);
        Qualifier Out : boolean = false, Scope(parameter), Flavor(DisableOverride);
        Qualifier Override : string = null, Scope(property, method, reference), Flavor(Restricted);
        Qualifier ValueMap : string[], Scope(property, method, parameter);
        Qualifier Values : string[], Scope(property, method, parameter), Flavor(Translatable);
    "#;

    fn compiled(classes: &str) -> Result<Schema, String> {
        let mut compiler = Compiler::new();
        compiler.add("qualifiers.mof", QUALIFIERS).map_err(|error| error.to_string())?;
        compiler.add("classes.mof", classes).map_err(|error| error.to_string())?;
        compiler.finish().map_err(|error| error.to_string())
    }

    #[test]
    fn a_class_has_what_it_inherits_with_redefined_members_in_their_place() {
        let schema = compiled(
            r#"
            // A line, /* which ends */
            [Abstract, Description ("All of " /* these */ "them")]
            class Base as $B {
                [Key, MaxLen(64)] string Id;
                uint16 State = 0x10;
                sint64 Small = -010;
                uint8 Bits[] = {101b, 7};
                datetime Wait = "00000000000500.000000:000";
                char16 Letter = '\x41';
                real32 Ratio = -1.5e1;
                boolean On = TRUE;
                string Quote = "a \"b\" \\ \x263a \xD83D\xDE00\n";
                string None = NULL;
                uint32 Go([In, ValueMap{"1"}, Values{"One"}] uint16 How, [In(false), Out] Base REF Made[],
                    [Out, CIMType("object:Base"), EmbeddedInstance("Base")] string Whole[]);
            };
            class Sub : Base {
                [Override("State"), Description("Its state")] uint16 State = 5;
                [Override("Id"), MaxLen(32)] string Id;
                [CIMType("ref:Base")] string Other;
                string Own[3];
            };
            [Association] class Link { [Key] Base REF One; [Key] Sub REF Other; };
            "#,
        )
        .unwrap();
        let base = schema.class("base").unwrap();
        assert!(base.is_abstract());
        assert_eq!(base.qualifier("description"), Some(&Value::from("All of them")));
        let default =
            |class: &str, name: &str| schema.class(class).unwrap().property(name).unwrap().default.clone();
        for (name, expected) in [
            ("Id", None),
            ("State", Some(Value::Uint16(16))),
            ("Small", Some(Value::Sint64(-8))),
            ("Bits", Some(Value::Array(vec![Value::Uint8(5), Value::Uint8(7)]))),
            ("Wait", Some(Value::Datetime("00000000000500.000000:000".parse::<Datetime>().unwrap()))),
            ("Letter", Some(Value::Char16(65))),
            ("Ratio", Some(Value::Real32(-15.0))),
            ("On", Some(Value::Boolean(true))),
            ("Quote", Some("a \"b\" \\ \u{263a} \u{1f600}\n".into())),
            ("None", None),
        ] {
            assert_eq!(default("Base", name), expected, "{name}");
        }
        let sub = schema.class("Sub").unwrap();
        assert!(!sub.is_abstract(), "Abstract is not inherited");
        assert_eq!(sub.properties[0].name, "Id");
        assert!(sub.properties[0].is_key());
        assert_eq!(sub.properties[0].qualifier("MaxLen"), Some(&Value::Uint32(32)));
        assert_eq!(sub.properties[0].origin, "Sub");
        assert_eq!(default("Sub", "State"), Some(Value::Uint16(5)));
        assert_eq!(default("Sub", "On"), Some(Value::Boolean(true)));
        assert_eq!(sub.properties.last().unwrap().name, "Own");
        assert_eq!(sub.property("Other").unwrap().ty, Type::Reference("Base".into()));
        let go = sub.method("go").unwrap();
        assert_eq!(go.origin, "Base");
        assert_eq!(
            go.parameters.iter().map(|p| (p.name.as_str(), p.input, p.output, p.array)).collect::<Vec<_>>(),
            [("How", true, false, false), ("Made", false, true, true), ("Whole", true, true, true)]
        );
        assert_eq!(go.parameter("Made").unwrap().ty, Type::Reference("Base".into()));
        assert_eq!(go.parameter("Whole").unwrap().ty, Type::Object(Some("Base".into())));
        assert!(schema.class("Link").unwrap().is_association());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, message) in [
            ("class A {", "classes.mof, line 1, column 10: expected a type, or `}`, found the end"),
            (
                "\n  class A { Foo x; };",
                "line 2, column 13: `Foo` is no type; references are written `Foo REF`",
            ),
            ("class A : B {};", "line 1, column 11: class B is not declared before this"),
            ("class A {}; class a {};", "column 19: class a is declared twice"),
            ("class A { uint8 X = 256; };", "column 21: 256 is no uint8"),
            ("class A { uint8 X = \"no\"; };", "column 21: \"no\" is no uint8"),
            ("class A { boolean X = 1; };", "column 23: 1 is no boolean"),
            ("class A { string X = {\"a\"}; };", "column 22: one value is expected here"),
            ("class A { [Nope] string X; };", "column 12: qualifier Nope is not declared"),
            ("class A { [Key, key] string X; };", "column 17: qualifier key stands here twice"),
            ("class A { [MaxLen] string X; };", "column 12: qualifier MaxLen needs a value"),
            ("class A { string X; string x; };", "column 28: X is declared twice in A"),
            (
                "class A { string X; }; class B : A { string X; };",
                "column 45: X is inherited from A; put [Over",
            ),
            ("class A { [Override(\"X\")] string X; };", "column 34: A inherits no property X"),
            (
                "class A { [Key(false)] string X; }; class B : A { [Override(\"X\"), Key] string X; };",
                "Key cannot be",
            ),
            ("class A { uint32 M(string P, string p); };", "column 37: parameter p is declared twice"),
            ("class A { string X = \"open; };", "column 22: the text has no closing quote"),
            ("class A { string X = \"\\q\"; };", "column 23: `\\q` is no escape of MOF"),
            ("class A { string X = \"\\xD83D\"; };", "half of a surrogate pair"),
            ("class A { uint8 X = 09; uint8 Y = 1x; };", "column 35: `1x` is no number"),
            ("/* never closed", "column 1: the comment has no end"),
            ("class A {} @", "column 12: `@` has no meaning"),
            ("#pragma include (\"x.mof\")", "`#pragma include` is not read here"),
            ("class A { B REF X; };", "A.X refers to class B, which is not declared"),
            ("instance of A {};", "a schema has classes, not instances"),
        ] {
            let error = compiled(text).unwrap_err();
            assert!(error.contains(message), "{text}\n{error}");
        }
    }
}
