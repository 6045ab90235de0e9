//! Expressions in the configuration of authentication and of authorization: over the claims of a token, over a user, or over
//! a review of access.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration>.

use std::sync::Arc;

use api::Value;

use crate::ast::{Expr, Kind, Literal};
use crate::checker::Checked;
use crate::decl::{Decl, DeclTypes};
use crate::env::{Env, Version};
use crate::eval::{Limits, Program};
use crate::types::Type;
use crate::value::{Outcome, Val};

static DYN: Decl = Decl::DYN;

/// What an expression is about: the one variable that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// `claims`: those of a token.
    Claims,
    /// `user`: a `UserInfo`.
    User,
    /// `request`: the `spec` of a `SubjectAccessReview`.
    Review,
}

impl About {
    fn variable(self) -> &'static str {
        match self {
            About::Claims => "claims",
            About::User => "user",
            About::Review => "request",
        }
    }

    fn env(self) -> Env {
        let declared = match self {
            About::Claims => {
                return Env::new(Version::STORED).variable("claims", Type::map(Type::String, Type::Dyn));
            }
            About::User => user(),
            About::Review => review(),
        };
        let declared = Arc::new(declared);
        Env::new(Version::STORED)
            .variable(self.variable(), declared.cel_type())
            .declarations(Arc::new(DeclTypes::new([declared])))
    }
}

/// An expression that was compiled.
#[derive(Debug)]
pub struct Expression {
    about: About,
    checked: Checked,
    program: Program,
}

impl Expression {
    /// Compiles an expression whose value is of one of the types `returns`, or of any if there are none.
    ///
    /// # Errors
    /// What is wrong with it, in the words of upstream.
    pub fn compile(about: About, text: &str, returns: &[Type]) -> Result<Self, String> {
        let checked = about.env().compile(text).map_err(|issues| format!("compilation failed: {issues}"))?;
        let got = checked.output_type();
        if let ([one], false) = (returns, returns.is_empty() || returns.contains(got)) {
            return Err(match about {
                About::Review => format!("must evaluate to {one} but got {got}"),
                About::Claims | About::User => format!("must evaluate to {one}"),
            });
        }
        let program = checked.program().map_err(|e| format!("program instantiation failed: {e}"))?;
        Ok(Self { about, checked, program })
    }

    /// The value of the expression over what it is about.
    pub fn evaluate<'a>(&self, over: &'a Value) -> Outcome<'a> {
        let variable = (self.about.variable(), Val::from_data(over, &DYN)?);
        self.program.evaluate(&[variable], Limits::default()).0
    }

    /// True when the expression asks for the member `field` of what it is about.
    pub fn selects(&self, field: &str) -> bool {
        let variable = |e: &Expr| e.as_ident() == Some(self.about.variable());
        let mut found = false;
        self.checked.ast.root.walk(&mut |e| {
            found |= match &e.kind {
                Kind::Select { operand, field: name, .. } => variable(operand) && name == field,
                Kind::Call { function, target: None, args } if function == "_?._" => {
                    let name = matches!(args.get(1).map(|a| &a.kind), Some(Kind::Literal(Literal::String(s))) if &**s == field);
                    name && args.first().is_some_and(variable)
                }
                _ => false,
            };
        });
        found
    }
}

fn object(name: &str, fields: Vec<(&str, Decl)>) -> Decl {
    Decl::object(name, fields.into_iter().map(|(name, decl)| (name.to_owned(), decl)))
}

fn strings() -> Decl {
    Decl::list(Decl::string(), None)
}

fn user() -> Decl {
    let text = Decl::string;
    let fields = vec![
        ("username", text()),
        ("uid", text()),
        ("groups", strings()),
        ("extra", Decl::map(strings(), None)),
    ];
    object("kubernetes.UserInfo", fields)
}

/// The `spec` of a `SubjectAccessReview`.
fn review() -> Decl {
    let text = Decl::string;
    let requirement = object(
        "kubernetes.SelectorRequirement",
        vec![("key", text()), ("operator", text()), ("values", strings())],
    );
    let selector = |name: &str| {
        object(name, vec![("rawSelector", text()), ("requirements", Decl::list(requirement.clone(), None))])
    };
    let names = ["namespace", "verb", "group", "version", "resource", "subresource", "name"];
    let mut resource: Vec<(&str, Decl)> = names.into_iter().map(|name| (name, text())).collect();
    resource.push(("fieldSelector", selector("kubernetes.FieldSelectorAttributes")));
    resource.push(("labelSelector", selector("kubernetes.LabelSelectorAttributes")));
    let fields = vec![
        ("resourceAttributes", object("kubernetes.ResourceAttributes", resource)),
        (
            "nonResourceAttributes",
            object("kubernetes.NonResourceAttributes", vec![("path", text()), ("verb", text())]),
        ),
        ("user", text()),
        ("groups", strings()),
        ("extra", Decl::map(strings(), None)),
        ("uid", text()),
    ];
    object("kubernetes.SubjectAccessReviewSpec", fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(about: About, text: &str, over: &str, want: &str) {
        let over = api::json::decode(over.as_bytes()).unwrap().value;
        let got = match Expression::compile(about, text, &[]).map(|e| format!("{:?}", e.evaluate(&over))) {
            Ok(value) | Err(value) => value,
        };
        assert!(got.contains(want), "{text}: {got}");
    }

    #[test]
    fn expressions_see_what_they_are_about() {
        let claims = r#"{"sub":"ann","roles":["a","b"],"email":"x@y","email_verified":true}"#;
        check(About::Claims, "'p:' + claims.sub", claims, "p:ann");
        check(About::Claims, "claims.roles.exists(r, r == 'b')", claims, "Bool(true)");
        check(About::Claims, "claims.?missing.orValue('none')", claims, "none");
        check(About::Claims, "claims.missing", claims, "no such key");
        check(About::Claims, "user.username", claims, "undeclared reference");
        let user = r#"{"username":"ann","groups":["g"],"extra":{"k":["v"]}}"#;
        check(About::User, "user.groups.all(g, !g.startsWith('system:'))", user, "Bool(true)");
        check(About::User, "user.name", user, "undefined field 'name'");
        let review = r#"{"user":"ann","groups":[],"resourceAttributes":{"verb":"get","resource":"pods","namespace":"a"}}"#;
        check(About::Review, "request.resourceAttributes.namespace == 'a'", review, "Bool(true)");
        check(About::Review, "has(request.nonResourceAttributes)", review, "Bool(false)");
    }

    #[test]
    fn types_of_values_are_checked() {
        let check = |about, want: &str| {
            let refused = Expression::compile(about, "'x'", &[Type::Bool]);
            assert_eq!(refused.err().as_deref(), Some(want));
        };
        check(About::Claims, "must evaluate to bool");
        check(About::Review, "must evaluate to bool but got string");
    }

    #[test]
    fn members_that_are_asked_for_are_known() {
        let check = |text: &str, want: bool| {
            let expression = Expression::compile(About::Claims, text, &[]).unwrap();
            assert_eq!(expression.selects("email_verified"), want, "{text}");
        };
        check("claims.email_verified ? claims.email : ''", true);
        check("claims.?email_verified.orValue(true) ? 'a' : 'b'", true);
        check("claims.email", false);
    }
}
