//! Declarations: classes and qualifiers as elements (DSP0201, 5.2).

use cim::xml::{Writer, Xml, type_of};
use cim::{Class, Method, Name, Parameter, Property, Qualifier, QualifierType, Schema, Type, Value};

/// What of a class is written.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Only what the class itself declares or overrides.
    pub(crate) local: bool,
    pub(crate) qualifiers: bool,
    pub(crate) origins: bool,
    /// Only these properties; none for all.
    pub(crate) properties: Option<Vec<Name>>,
}

/// Writes the declarations of a schema.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Declarer<'s> {
    pub(crate) schema: &'s Schema,
    pub(crate) shape: &'s Shape,
}

impl Declarer<'_> {
    /// `CLASS`.
    pub(crate) fn class(&self, xml: &mut Xml, class: &Class) {
        let mut attributes = vec![("NAME", class.name.as_str())];
        attributes.extend(class.superclass.as_ref().map(|above| ("SUPERCLASS", above.as_str())));
        xml.open("CLASS", &attributes);
        self.qualifiers(xml, &class.qualifiers);
        let shown = |origin: &Name| !self.shape.local || *origin == class.name;
        let selected = |name: &Name| self.shape.properties.as_ref().is_none_or(|list| list.contains(name));
        for property in class.properties.iter().filter(|one| shown(&one.origin) && selected(&one.name)) {
            self.property(xml, class, property);
        }
        for method in class.methods.iter().filter(|one| shown(&one.origin)) {
            self.method(xml, class, method);
        }
        xml.close("CLASS");
    }

    /// What a property and a method say of where they come from.
    fn origin<'a>(&self, attributes: &mut Vec<(&'a str, &'a str)>, class: &Class, origin: &'a Name) {
        if self.shape.origins {
            attributes.push(("CLASSORIGIN", origin.as_str()));
        }
        attributes.push(("PROPAGATED", if *origin == class.name { "false" } else { "true" }));
    }

    fn property(&self, xml: &mut Xml, class: &Class, property: &Property) {
        let mut attributes = vec![("NAME", property.name.as_str())];
        let tag = match (&property.ty, property.array) {
            (Type::Reference(to), false) => {
                attributes.push(("REFERENCECLASS", to.as_str()));
                "PROPERTY.REFERENCE"
            }
            (ty, array) => {
                attributes.push(("TYPE", plain(ty)));
                if array { "PROPERTY.ARRAY" } else { "PROPERTY" }
            }
        };
        self.origin(&mut attributes, class, &property.origin);
        // That a text is an instance is said by a qualifier; the attribute for it is one that a client does not know here.
        xml.open(tag, &attributes);
        self.qualifiers(xml, &property.qualifiers);
        if let Some(default) = &property.default {
            Writer::new(self.schema).value(xml, default);
        }
        xml.close(tag);
    }

    fn method(&self, xml: &mut Xml, class: &Class, method: &Method) {
        let mut attributes = vec![("NAME", method.name.as_str()), ("TYPE", plain(&method.returns))];
        self.origin(&mut attributes, class, &method.origin);
        xml.open("METHOD", &attributes);
        self.qualifiers(xml, &method.qualifiers);
        for parameter in &method.parameters {
            self.parameter(xml, parameter);
        }
        xml.close("METHOD");
    }

    fn parameter(&self, xml: &mut Xml, parameter: &Parameter) {
        let mut attributes = vec![("NAME", parameter.name.as_str())];
        let tag = match (&parameter.ty, parameter.array) {
            (Type::Reference(to), array) => {
                attributes.push(("REFERENCECLASS", to.as_str()));
                if array { "PARAMETER.REFARRAY" } else { "PARAMETER.REFERENCE" }
            }
            (ty, array) => {
                attributes.push(("TYPE", plain(ty)));
                if array { "PARAMETER.ARRAY" } else { "PARAMETER" }
            }
        };
        xml.open(tag, &attributes);
        self.qualifiers(xml, &parameter.qualifiers);
        xml.close(tag);
    }

    fn qualifiers(&self, xml: &mut Xml, qualifiers: &[Qualifier]) {
        if !self.shape.qualifiers {
            return;
        }
        for qualifier in qualifiers {
            let declared = self.schema.qualifier(qualifier.name.as_str());
            let ty = declared.map(|declared| declared.ty.clone()).or_else(|| type_of(&qualifier.value));
            let mut attributes = vec![
                ("NAME", qualifier.name.as_str()),
                ("TYPE", ty.as_ref().map_or(Type::String.keyword(), Type::keyword)),
            ];
            attributes.extend(declared.map(flavors).unwrap_or_default());
            xml.open("QUALIFIER", &attributes);
            Writer::new(self.schema).value(xml, &qualifier.value);
            xml.close("QUALIFIER");
        }
    }
}

/// The flavours that are not what DSP0201 takes for granted.
fn flavors(declared: &QualifierType) -> Vec<(&'static str, &'static str)> {
    let mut flavors = Vec::new();
    if !declared.overridable {
        flavors.push(("OVERRIDABLE", "false"));
    }
    if !declared.inherited {
        flavors.push(("TOSUBCLASS", "false"));
    }
    if declared.translatable {
        flavors.push(("TRANSLATABLE", "true"));
    }
    flavors
}

/// What `TYPE` says of a type that has no element of its own.
fn plain(ty: &Type) -> &'static str {
    match ty {
        Type::Object(_) | Type::Reference(_) => Type::String.keyword(),
        ty => ty.keyword(),
    }
}

/// `QUALIFIER.DECLARATION`.
pub(crate) fn qualifier(xml: &mut Xml, schema: &Schema, declared: &QualifierType) {
    let mut attributes = vec![
        ("NAME", declared.name.as_str()),
        ("TYPE", declared.ty.keyword()),
        ("ISARRAY", if declared.array { "true" } else { "false" }),
    ];
    attributes.extend(flavors(declared));
    xml.open("QUALIFIER.DECLARATION", &attributes);
    let any = declared.scopes.iter().any(|scope| scope == "any");
    let scopes = ["class", "association", "reference", "property", "method", "parameter", "indication"];
    let marked: Vec<(String, &str)> = scopes
        .iter()
        .filter(|scope| any || declared.scopes.iter().any(|there| there == *scope))
        .map(|scope| (scope.to_ascii_uppercase(), "true"))
        .collect();
    let marked: Vec<(&str, &str)> = marked.iter().map(|(scope, is)| (scope.as_str(), *is)).collect();
    xml.empty("SCOPE", &marked);
    if let Some(default) = &declared.default {
        let elements: &[Value] = default.elements();
        if !elements.is_empty() {
            Writer::new(schema).value(xml, default);
        }
    }
    xml.close("QUALIFIER.DECLARATION");
}
