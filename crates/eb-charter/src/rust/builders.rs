//! Events that are built with `EnvelopeBuilder` within one function.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::Span;
use syn::visit::Visit;
use syn::{Expr, Pat};

use super::imports::Imports;

const BUILDER: &str = "EnvelopeBuilder";

/// One builder and what is done with it.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) span: Span,
    /// What was called on it.
    pub(super) methods: BTreeSet<String>,
}

/// Every builder that a function makes. A builder that goes elsewhere (returned, handed on) is not followed: it has no `build` here.
pub(super) fn of(block: &syn::Block, imports: &Imports) -> Vec<Built> {
    let mut collect =
        Collect { imports, built: Vec::new(), variables: BTreeMap::new(), mentioned: BTreeSet::new() };
    collect.visit_block(block);
    let Collect { mut built, mentioned, .. } = collect;
    // `EnvelopeBuilder::producer` named as a function may be called on any of them.
    built.iter_mut().for_each(|b| b.methods.extend(mentioned.iter().cloned()));
    built
}

struct Collect<'i> {
    imports: &'i Imports,
    built: Vec<Built>,
    variables: BTreeMap<String, usize>,
    mentioned: BTreeSet<String>,
}

/// Whether an expression is a call of `EnvelopeBuilder::new`; its arguments.
pub(super) fn new_call<'e>(expr: &'e Expr, imports: &Imports) -> Option<&'e syn::ExprCall> {
    let Expr::Call(call) = expr else { return None };
    let Expr::Path(path) = &*call.func else { return None };
    matches!(&imports.resolve(&path.path)[..], [.., builder, new] if builder == BUILDER && new == "new")
        .then_some(call)
}

impl Collect<'_> {
    /// Follows a chain of calls down to its root, and visits the arguments on the way. Gives back the builder that it is about.
    fn chain(&mut self, expr: &Expr) -> Option<usize> {
        match expr {
            Expr::MethodCall(call) => {
                let builder = self.chain(&call.receiver);
                call.args.iter().for_each(|arg| self.visit_expr(arg));
                if let Some(builder) = builder {
                    self.built[builder].methods.insert(call.method.to_string());
                }
                builder
            }
            Expr::Paren(inner) => self.chain(&inner.expr),
            Expr::Try(inner) => self.chain(&inner.expr),
            Expr::Await(inner) => self.chain(&inner.base),
            Expr::Reference(inner) => self.chain(&inner.expr),
            Expr::Path(path) => {
                self.mention(&path.path);
                self.variables.get(&path.path.get_ident()?.to_string()).copied()
            }
            Expr::Call(call) => {
                let (Some(_), Expr::Path(path)) = (new_call(expr, self.imports), &*call.func) else {
                    syn::visit::visit_expr_call(self, call);
                    return None;
                };
                let span = path.path.segments.first().map_or_else(Span::call_site, |s| s.ident.span());
                call.args.iter().for_each(|arg| self.visit_expr(arg));
                self.built.push(Built { span, methods: BTreeSet::new() });
                Some(self.built.len() - 1)
            }
            other => {
                syn::visit::visit_expr(self, other);
                None
            }
        }
    }

    fn mention(&mut self, path: &syn::Path) {
        if let [.., builder, method] = &self.imports.resolve(path)[..]
            && builder == BUILDER
        {
            self.mentioned.insert(method.clone());
        }
    }
}

impl<'ast> Visit<'ast> for Collect<'_> {
    fn visit_expr(&mut self, expr: &'ast Expr) {
        match expr {
            Expr::MethodCall(_) | Expr::Call(_) | Expr::Path(_) => drop(self.chain(expr)),
            other => syn::visit::visit_expr(self, other),
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        let pattern = match &local.pat {
            Pat::Type(typed) => &*typed.pat,
            other => other,
        };
        let Some(init) = &local.init else { return };
        let builder = self.chain(&init.expr);
        if let Some((_, other)) = &init.diverge {
            self.visit_expr(other);
        }
        if let Pat::Ident(name) = pattern {
            let name = name.ident.to_string();
            match builder {
                Some(builder) => self.variables.insert(name, builder),
                None => self.variables.remove(&name),
            };
        }
    }

    fn visit_expr_assign(&mut self, assign: &'ast syn::ExprAssign) {
        let builder = self.chain(&assign.right);
        if let (Some(builder), Expr::Path(path)) = (builder, &*assign.left)
            && let Some(name) = path.path.get_ident()
        {
            self.variables.insert(name.to_string(), builder);
        }
    }

    /// Functions within functions are looked at by themselves.
    fn visit_item(&mut self, _: &'ast syn::Item) {}
}
