//! Routes that can be listed. axum's own router cannot say what it serves, and who may do what is checked for everything
//! that is: whatever a router of this gateway answers has gone through [`Routes::route`].

use std::convert::Infallible;

use axum::{
    Router,
    handler::Handler,
    routing::{self, MethodRouter},
};
use http::Method;

/// A method on a path; `{name}` stands for one segment of it. `GET` answers `HEAD` as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub method: Method,
    pub path: &'static str,
}

/// axum's router with the list of what it serves.
pub(super) struct Routes<S> {
    router: Router<S>,
    operations: Vec<Operation>,
}

/// What answers on one path, by method.
pub(super) struct Handlers<S> {
    router: MethodRouter<S, Infallible>,
    methods: Vec<Method>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(super) fn new() -> Self {
        Self { router: Router::new(), operations: Vec::new() }
    }

    #[must_use]
    pub(super) fn route(mut self, path: &'static str, handlers: Handlers<S>) -> Self {
        self.operations.extend(handlers.methods.into_iter().map(|method| Operation { method, path }));
        Self { router: self.router.route(path, handlers.router), ..self }
    }

    #[must_use]
    pub(super) fn merge(mut self, other: Self) -> Self {
        self.operations.extend(other.operations);
        Self { router: self.router.merge(other.router), ..self }
    }

    pub(super) fn into_router(self) -> Router<S> {
        self.router
    }

    /// In the order in which they are declared.
    pub(super) fn into_operations(self) -> Vec<Operation> {
        self.operations
    }
}

impl<S: Clone + Send + Sync + 'static> Handlers<S> {
    #[must_use]
    pub(super) fn post<H: Handler<T, S>, T: 'static>(self, handler: H) -> Self {
        self.with(Method::POST, |router| router.post(handler))
    }

    #[must_use]
    pub(super) fn delete<H: Handler<T, S>, T: 'static>(self, handler: H) -> Self {
        self.with(Method::DELETE, |router| router.delete(handler))
    }

    fn with(mut self, method: Method, add: impl FnOnce(MethodRouter<S>) -> MethodRouter<S>) -> Self {
        self.methods.push(method);
        Self { router: add(self.router), ..self }
    }
}

pub(super) fn get<S: Clone + Send + Sync + 'static, H: Handler<T, S>, T: 'static>(handler: H) -> Handlers<S> {
    Handlers { router: routing::get(handler), methods: vec![Method::GET] }
}

pub(super) fn post<S: Clone + Send + Sync + 'static, H: Handler<T, S>, T: 'static>(handler: H) -> Handlers<S> {
    Handlers { router: routing::post(handler), methods: vec![Method::POST] }
}
