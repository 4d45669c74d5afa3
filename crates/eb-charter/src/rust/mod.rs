//! One Rust file.

mod builders;
mod imports;
mod scan;
mod syntax;
mod types;

use std::collections::BTreeMap;

use proc_macro2::{Span, TokenStream};
use syn::punctuated::Punctuated;
use syn::visit::Visit;
use syn::{Attribute, Expr, Lit, Token};

pub(crate) use imports::is_bus_crate;

use crate::event_type::{self, Verbs};
use crate::violation::{At, Rule, Violation};
use imports::{Imports, PUBLISHER};
use syntax::{Literals, attributes, bare, is_test, literal};
use types::{Known, Types, base_name};

/// What every event says of its origin.
pub(super) const REQUIRED: [&str; 3] = ["producer", "source_module", "schema_version"];
/// The methods that publish.
const METHODS: [&str; 2] = ["publish", "publish_batch"];
/// The deepest nesting of brackets that is parsed.
const MAX_DEPTH: usize = 200;

/// What a file's surroundings say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'s> {
    /// Whether its package depends on a crate through which a bus can be had.
    pub(crate) near_bus: bool,
    /// Whether it is test code by its place.
    pub(crate) in_test: bool,
    /// Names of crates (as sources write them) that it may not know, with their packages.
    pub(crate) forbidden: &'s [(String, String)],
    /// What past tenses are.
    pub(crate) verbs: &'s Verbs,
}

/// What was found in a file.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) violations: Vec<Violation>,
    /// Files that hold modules of tests only: `#[cfg(test)] mod name;`, by the module's name.
    pub(crate) test_modules: Vec<String>,
}

/// Looks through a file.
///
/// # Errors
/// Where it is no Rust, and why.
pub(crate) fn check(file: &str, text: &str, around: Surroundings<'_>) -> Result<Found, (At, String)> {
    let error = |e: &syn::Error| (At::of(e.span()), format!("not Rust: {e}"));
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // A line for `cargo script` or an interpreter is none of Rust's.
    let shebang = text.starts_with("#!") && !text.trim_start_matches("#!").trim_start().starts_with('[');
    let text = if shebang { format!("//{}", &text[2..]) } else { text.to_owned() };
    let tokens: TokenStream =
        text.parse().map_err(|e: proc_macro2::LexError| (At::of(e.span()), format!("not Rust: {e}")))?;
    if scan::depth(&tokens, MAX_DEPTH + 1) > MAX_DEPTH {
        return Err((At::START, format!("brackets nest more than {MAX_DEPTH} deep")));
    }
    let parsed: syn::File = syn::parse2(tokens).map_err(|e| error(&e))?;
    let imports = Imports::of(&parsed);
    let types = Types::of(&parsed, &imports);
    let mut checker = Checker {
        file,
        around,
        near_bus: imports.near_bus || around.near_bus,
        imports,
        types,
        constants: BTreeMap::new(),
        in_test: usize::from(around.in_test),
        found: Found::default(),
    };
    checker.constants(&parsed);
    checker.visit_file(&parsed);
    Ok(checker.found)
}

struct Checker<'c> {
    file: &'c str,
    around: Surroundings<'c>,
    near_bus: bool,
    imports: Imports,
    types: Types,
    /// String constants of this file.
    constants: BTreeMap<String, String>,
    in_test: usize,
    found: Found,
}

impl Checker<'_> {
    fn report(&mut self, span: Span, rule: Rule, message: String, advice: impl Into<String>) {
        let mut violation = Violation::new(self.file, At::of(span), rule, message, advice);
        violation.in_test = self.in_test > 0;
        // A macro may be looked at in more than one way.
        if !self.found.violations.contains(&violation) {
            self.found.violations.push(violation);
        }
    }

    fn constants(&mut self, file: &syn::File) {
        struct Constants<'m>(&'m mut BTreeMap<String, String>);
        impl<'ast> Visit<'ast> for Constants<'_> {
            fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
                if let Some((text, _)) = literal(&item.expr) {
                    self.0.insert(item.ident.to_string(), text);
                }
            }
        }
        Constants(&mut self.constants).visit_file(file);
    }

    // ---- publishing

    fn past_gate(&mut self, span: Span, how: &str) {
        let advice = "send it through ig_gate::Gate::admit; whoever may publish is named in charter.toml with a reason";
        self.report(span, Rule::PublishPastGate, format!("{how} publishes to a bus past the gate"), advice);
    }

    /// Whether a call of `publish` or `publish_batch` with two arguments is one of the trait.
    fn publishes(&self, method: &str, receiver: Option<&Expr>, name: Option<&str>) -> bool {
        if let Some(known) = receiver.and_then(|expr| self.types.receiver(expr)) {
            if known.contains(&Known::Publisher) {
                return true;
            }
            if known.iter().all(|k| *k == Known::Foreign) {
                return false;
            }
        }
        let called_so = name.is_some_and(|name| name == "publisher" || name.ends_with("_publisher"));
        self.imports.publisher_in_scope
            || self.imports.near_bus
            || (self.near_bus && (called_so || method == "publish_batch"))
    }

    fn check_path_call(&mut self, path: &syn::ExprPath) {
        let full = self.imports.resolve(&path.path);
        let Some((method, before)) = full.split_last() else { return };
        if !METHODS.contains(&method.as_str()) {
            return;
        }
        let of_trait = before.last().is_some_and(|t| t == PUBLISHER);
        let of_type = match &path.qself {
            Some(qself) => {
                let ty = &*qself.ty;
                let mut named = Named { imports: &self.imports, found: false };
                named.visit_type(ty);
                named.found
            }
            None => {
                before.last().is_some_and(|t| t.ends_with("Publisher"))
                    && before.first().is_some_and(|first| is_bus_crate(first))
            }
        };
        if let Some(last) = path.path.segments.last().filter(|_| of_trait || of_type) {
            self.past_gate(last.ident.span(), &format!("`{PUBLISHER}::{method}`"));
        }
    }

    // ---- events

    fn event_type(&mut self, name: &str, span: Span) {
        if let Some(what) = self.around.verbs.fault(name) {
            self.report(span, Rule::EventType, what, event_type::ADVICE);
        }
    }

    /// An expression that should be an event type: a literal, or a constant of this file.
    fn typed_as(&mut self, expr: &Expr) {
        if let Some((text, span)) = literal(expr) {
            self.event_type(&text, span);
        } else if let Expr::Path(path) = bare(expr)
            && let Some(name) = path.path.get_ident()
            && let Some(text) = self.constants.get(&name.to_string()).cloned()
        {
            self.event_type(&text, name.span());
        } else if let Expr::Array(array) = bare(expr) {
            array.elems.iter().for_each(|e| self.typed_as(e));
        }
    }

    fn lacks(&mut self, span: Span, missing: &[&str]) {
        if !missing.is_empty() {
            let what = format!("an event is built without {}", missing.join(", "));
            self.report(span, Rule::EventFields, what, "every event says who emitted it (producer, source_module) and by which version of its schema (schema_version)");
        }
    }

    fn body(&mut self, block: &syn::Block) {
        for built in builders::of(block, &self.imports) {
            if built.methods.contains("build") {
                let missing: Vec<_> = REQUIRED.into_iter().filter(|f| !built.methods.contains(*f)).collect();
                self.lacks(built.span, &missing);
            }
        }
    }

    fn text(&mut self, text: &str, span: Span) {
        let Some(event) = scan::text_event(text) else { return };
        if let Some(name) = &event.event_type {
            self.event_type(name, span);
        }
        if event.is_envelope {
            self.lacks(span, &event.lacks);
        }
    }

    /// What a macro's tokens hold: expressions where they parse as such, and else what tokens alone can tell.
    fn tokens(&mut self, tokens: &TokenStream) {
        let mut objects = Vec::new();
        scan::objects(tokens, &mut objects);
        for object in objects {
            let Some((_, name)) = object.keys.iter().find(|(key, _)| key == "event_type") else { continue };
            if let Some((name, span)) = name {
                self.event_type(name, *span);
            }
            let has = |field: &&str| object.keys.iter().any(|(key, _)| key == field);
            if has(&"event_id") && has(&"manifest_fingerprint") {
                let missing: Vec<_> = REQUIRED.into_iter().filter(|f| !has(f)).collect();
                self.lacks(object.span, &missing);
            }
        }
        let parser = Punctuated::<Expr, Token![,]>::parse_terminated;
        if let Ok(list) = syn::parse::Parser::parse2(parser, tokens.clone()) {
            list.iter().for_each(|expr| self.visit_expr(expr));
            return;
        }
        if let Ok(statements) = syn::parse::Parser::parse2(syn::Block::parse_within, tokens.clone()) {
            statements.iter().for_each(|statement| self.visit_stmt(statement));
            return;
        }
        let mut calls = Vec::new();
        scan::calls(tokens, &METHODS, &mut calls);
        for call in calls {
            if self.publishes(&call.method, None, call.receiver.as_deref()) {
                self.past_gate(call.span, &format!("`.{}(…)` in a macro", call.method));
            }
        }
        let mut strings = Vec::new();
        scan::strings(tokens, &mut strings);
        strings.iter().for_each(|(text, span)| self.text(text, *span));
    }

    // ---- other backends

    fn crate_name(&mut self, name: &syn::Ident) {
        let found = self.around.forbidden.iter().find(|(local, _)| name == local);
        if let Some((_, package)) = found {
            let what = format!("a backend knows the backend {package}");
            self.report(
                name.span(),
                Rule::BackendImport,
                what,
                "backends know eb-contract alone; what two of them share goes below both",
            );
        }
    }

    fn within_test(&mut self, attributes: &[Attribute], visit: impl FnOnce(&mut Self)) {
        let test = usize::from(is_test(attributes));
        self.in_test += test;
        visit(self);
        self.in_test -= test;
    }
}

/// Whether a type mentions one that can publish.
struct Named<'i> {
    imports: &'i Imports,
    found: bool,
}

impl<'ast> Visit<'ast> for Named<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let full = self.imports.resolve(path);
        let last = full.last().map_or("", String::as_str);
        self.found |= last == PUBLISHER
            || (full.first().is_some_and(|f| is_bus_crate(f)) && last.ends_with("Publisher"));
        syn::visit::visit_path(self, path);
    }
}

impl<'ast> Visit<'ast> for Checker<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = attributes(item);
        self.within_test(attributes, |this| syn::visit::visit_item(this, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.within_test(&item.attrs, |this| {
            this.body(&item.block);
            syn::visit::visit_impl_item_fn(this, item);
        });
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.body(block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.body(&item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_none() && is_test(&item.attrs) {
            self.found.test_modules.push(item.ident.to_string());
        }
        syn::visit::visit_item_mod(self, item);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.crate_name(&item.ident);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        fn roots<'t>(tree: &'t syn::UseTree, out: &mut Vec<&'t syn::Ident>) {
            match tree {
                syn::UseTree::Path(path) => out.push(&path.ident),
                syn::UseTree::Name(name) => out.push(&name.ident),
                syn::UseTree::Rename(rename) => out.push(&rename.ident),
                syn::UseTree::Group(group) => group.items.iter().for_each(|tree| roots(tree, out)),
                syn::UseTree::Glob(_) => {}
            }
        }
        let mut names = Vec::new();
        roots(&item.tree, &mut names);
        names.into_iter().for_each(|name| self.crate_name(name));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1
            && let Some(first) = path.segments.first()
        {
            self.crate_name(&first.ident);
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        if item.ident.to_string().contains("EVENT_TYPE") {
            self.typed_as(&item.expr);
        }
        syn::visit::visit_item_const(self, item);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        if item.ident.to_string().contains("EVENT_TYPE") {
            self.typed_as(&item.expr);
        }
        syn::visit::visit_item_static(self, item);
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        let pattern = match &local.pat {
            syn::Pat::Type(typed) => &*typed.pat,
            other => other,
        };
        if let (syn::Pat::Ident(name), Some(init)) = (pattern, &local.init)
            && name.ident == "event_type"
        {
            self.typed_as(&init.expr);
        }
        syn::visit::visit_local(self, local);
    }

    fn visit_field_value(&mut self, field: &'ast syn::FieldValue) {
        if matches!(&field.member, syn::Member::Named(name) if name == "event_type") {
            self.typed_as(&field.expr);
        }
        syn::visit::visit_field_value(self, field);
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        if matches!(binary.op, syn::BinOp::Eq(_) | syn::BinOp::Ne(_)) {
            for (one, other) in [(&binary.left, &binary.right), (&binary.right, &binary.left)] {
                if base_name(one).is_some_and(|name| name == "event_type") {
                    self.typed_as(other);
                }
            }
        }
        syn::visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_match(&mut self, item: &'ast syn::ExprMatch) {
        if base_name(&item.expr).is_some_and(|name| name == "event_type") {
            let mut literals = Literals(Vec::new());
            item.arms.iter().for_each(|arm| literals.visit_pat(&arm.pat));
            for (text, span) in literals.0 {
                self.event_type(&text, span);
            }
        }
        syn::visit::visit_expr_match(self, item);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        let expr = Expr::Call(call.clone());
        if let Some(new) = builders::new_call(&expr, &self.imports)
            && let Some(name) = new.args.first()
        {
            self.typed_as(name);
        }
        syn::visit::visit_expr_call(self, call);
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        self.check_path_call(path);
        syn::visit::visit_expr_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let method = call.method.to_string();
        if METHODS.contains(&method.as_str())
            && call.args.len() == 2
            && self.publishes(&method, Some(&call.receiver), base_name(&call.receiver).as_deref())
        {
            self.past_gate(call.method.span(), &format!("`.{method}(…)`"));
        }
        let names_type = matches!(method.as_str(), "event_type" | "on" | "on_raw");
        if names_type
            && let Some(name) = call.args.first()
            && (method == "event_type" || self.imports.mentions("eb_consumer"))
        {
            self.typed_as(name);
        }
        syn::visit::visit_expr_method_call(self, call);
    }

    fn visit_lit(&mut self, lit: &'ast Lit) {
        match lit {
            Lit::Str(text) => self.text(&text.value(), text.span()),
            Lit::ByteStr(bytes) => {
                if let Ok(text) = String::from_utf8(bytes.value()) {
                    self.text(&text, bytes.span());
                }
            }
            _ => {}
        }
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        // Documentation shows events as it likes.
        if !attribute.path().is_ident("doc") {
            syn::visit::visit_attribute(self, attribute);
        }
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.visit_path(&item.path);
        self.tokens(&item.tokens);
    }
}
