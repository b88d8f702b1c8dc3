//! Requests on their way from the application to their connection.

use softrdma_mpa_ddp_rdmap::SendRequest;

/// Requests that were admitted. Whoever takes one takes it over in place: a request is large.
pub(crate) struct Posted<'a> {
    one: Option<&'a mut SendRequest>,
    several: std::slice::IterMut<'a, Option<SendRequest>>,
}

impl<'a> Posted<'a> {
    pub(crate) fn one(request: &'a mut SendRequest) -> Self {
        Self { one: Some(request), several: [].iter_mut() }
    }

    /// All of `requests`, each of which is there.
    pub(crate) fn several(requests: &'a mut [Option<SendRequest>]) -> Self {
        debug_assert!(requests.iter().all(Option::is_some));
        Self { one: None, several: requests.iter_mut() }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.one.is_none() && self.several.len() == 0
    }
}

impl<'a> Iterator for Posted<'a> {
    type Item = &'a mut SendRequest;

    #[inline]
    fn next(&mut self) -> Option<&'a mut SendRequest> {
        match self.one.take() {
            Some(request) => Some(request),
            None => self.several.next()?.as_mut(),
        }
    }
}
