//! What is known of the types of names: from annotations in the same file, nothing else.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::Visit;
use syn::{Expr, FnArg, GenericParam, Pat, Type, TypeParamBound};

use super::imports::{Imports, PUBLISHER, is_bus_crate};

/// What an annotation says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    /// It can publish.
    Publisher,
    /// It comes from a crate that is none of ours.
    Foreign,
    /// Neither can be told.
    Other,
}

/// Names of parameters, fields, variables and statics with what their annotations say. One name may stand for several
/// things in a file; all of them are kept.
#[derive(Debug, Default)]
pub(super) struct Types {
    names: BTreeMap<String, BTreeSet<Known>>,
    /// Type parameters and aliases that can publish.
    publishers: BTreeSet<String>,
}

impl Types {
    pub(super) fn of(file: &syn::File, imports: &Imports) -> Self {
        // Aliases and bounds first: annotations may come before them.
        let mut names = Publishers { imports, found: BTreeSet::new() };
        names.visit_file(file);
        // An alias of an alias.
        names.visit_file(file);
        let mut types = Collect { imports, types: Self { names: BTreeMap::new(), publishers: names.found } };
        types.visit_file(file);
        types.types
    }

    /// What is known of the value that a method is called on.
    pub(super) fn receiver(&self, expr: &Expr) -> Option<&BTreeSet<Known>> {
        self.names.get(&base_name(expr)?)
    }
}

/// The name that an expression is about: the variable, or the last field. Borrowing, cloning and the like are looked through.
pub(super) fn base_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
        Expr::Field(field) => match &field.member {
            syn::Member::Named(name) => Some(name.to_string()),
            syn::Member::Unnamed(_) => base_name(&field.base),
        },
        Expr::Reference(inner) => base_name(&inner.expr),
        Expr::Paren(inner) => base_name(&inner.expr),
        Expr::Unary(inner) => base_name(&inner.expr),
        Expr::Try(inner) => base_name(&inner.expr),
        Expr::Await(inner) => base_name(&inner.base),
        Expr::Index(inner) => base_name(&inner.expr),
        Expr::MethodCall(call) => {
            let name = call.method.to_string();
            let through = matches!(
                name.as_str(),
                "as_ref"
                    | "as_mut"
                    | "as_deref"
                    | "clone"
                    | "borrow"
                    | "deref"
                    | "lock"
                    | "read"
                    | "write"
                    | "unwrap"
                    | "expect"
                    | "get"
            );
            if through { base_name(&call.receiver) } else { Some(name) }
        }
        _ => None,
    }
}

/// The identifiers in a type, each path resolved.
struct Mentions<'i> {
    imports: &'i Imports,
    publisher: bool,
    foreign: bool,
    ours: bool,
    also: &'i BTreeSet<String>,
}

impl<'ast> Visit<'ast> for Mentions<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let full = self.imports.resolve(path);
        let first = full.first().map_or("", String::as_str);
        let last = full.last().map_or("", String::as_str);
        let of_bus = is_bus_crate(first);
        self.publisher |= last == PUBLISHER
            || (full.len() == 1 && self.also.contains(last))
            || (of_bus && last.ends_with("Publisher"));
        if full.len() > 1 {
            let standard = matches!(first, "std" | "core" | "alloc" | "parking_lot" | "tokio");
            let here = matches!(first, "crate" | "self" | "super" | "Self");
            self.ours |= of_bus || here;
            self.foreign |= !(standard || of_bus || here);
        } else if !matches!(last, "Arc" | "Box" | "Rc" | "Option" | "Vec" | "Mutex" | "RwLock" | "Pin") {
            // A type of this file, or one that a glob brought.
            self.ours = true;
        }
        syn::visit::visit_path(self, path);
    }
}

fn known(imports: &Imports, also: &BTreeSet<String>, ty: &Type) -> Known {
    let mut mentions = Mentions { imports, publisher: false, foreign: false, ours: false, also };
    mentions.visit_type(ty);
    if mentions.publisher {
        Known::Publisher
    } else if mentions.foreign && !mentions.ours {
        Known::Foreign
    } else {
        Known::Other
    }
}

/// Type parameters bound by the trait, and aliases of types that can publish.
struct Publishers<'i> {
    imports: &'i Imports,
    found: BTreeSet<String>,
}

impl Publishers<'_> {
    fn bounds<'b>(&mut self, name: &str, bounds: impl IntoIterator<Item = &'b TypeParamBound>) {
        let publishes = |bound: &TypeParamBound| match bound {
            TypeParamBound::Trait(bound) => {
                self.imports.resolve(&bound.path).last().is_some_and(|last| last == PUBLISHER)
            }
            _ => false,
        };
        if bounds.into_iter().any(publishes) {
            self.found.insert(name.to_owned());
        }
    }
}

impl<'ast> Visit<'ast> for Publishers<'_> {
    fn visit_generics(&mut self, generics: &'ast syn::Generics) {
        for param in &generics.params {
            if let GenericParam::Type(param) = param {
                self.bounds(&param.ident.to_string(), &param.bounds);
            }
        }
        for predicate in generics.where_clause.iter().flat_map(|w| &w.predicates) {
            if let syn::WherePredicate::Type(predicate) = predicate
                && let Type::Path(path) = &predicate.bounded_ty
                && let Some(name) = path.path.get_ident()
            {
                self.bounds(&name.to_string(), &predicate.bounds);
            }
        }
        syn::visit::visit_generics(self, generics);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        if known(self.imports, &self.found, &item.ty) == Known::Publisher {
            self.found.insert(item.ident.to_string());
        }
    }
}

struct Collect<'i> {
    imports: &'i Imports,
    types: Types,
}

impl Collect<'_> {
    fn note(&mut self, name: &str, ty: &Type) {
        let known = known(self.imports, &self.types.publishers, ty);
        self.types.names.entry(name.to_owned()).or_default().insert(known);
    }

    fn pattern(&mut self, pattern: &Pat, ty: &Type) {
        match pattern {
            Pat::Ident(name) => self.note(&name.ident.to_string(), ty),
            Pat::Reference(inner) => self.pattern(&inner.pat, ty),
            _ => {}
        }
    }
}

impl<'ast> Visit<'ast> for Collect<'_> {
    fn visit_fn_arg(&mut self, arg: &'ast FnArg) {
        if let FnArg::Typed(typed) = arg {
            self.pattern(&typed.pat, &typed.ty);
        }
        syn::visit::visit_fn_arg(self, arg);
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if let Pat::Type(typed) = &local.pat {
            self.pattern(&typed.pat, &typed.ty);
        }
        syn::visit::visit_local(self, local);
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        for input in &closure.inputs {
            if let Pat::Type(typed) = input {
                self.pattern(&typed.pat, &typed.ty);
            }
        }
        syn::visit::visit_expr_closure(self, closure);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if let Some(name) = &field.ident {
            self.note(&name.to_string(), &field.ty);
        }
        syn::visit::visit_field(self, field);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.note(&item.ident.to_string(), &item.ty);
        syn::visit::visit_item_static(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        // `bus()` is as good as a variable of its type.
        if let syn::ReturnType::Type(_, ty) = &item.sig.output {
            self.note(&item.sig.ident.to_string(), ty);
        }
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if let syn::ReturnType::Type(_, ty) = &item.sig.output {
            self.note(&item.sig.ident.to_string(), ty);
        }
        syn::visit::visit_impl_item_fn(self, item);
    }
}
