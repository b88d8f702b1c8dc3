//! Shows a device's counters to `softrdma stat` while it is in use.

use std::sync::{Arc, Mutex, PoisonError};

use softrdma_verbs::Device;

use crate::statistics_socket::StatisticsSocket;

/// Counters on a socket, until it is dropped.
pub struct StatisticsPage {
    // The socket's thread outlives this; it must not keep the device open.
    device: Arc<Mutex<Option<Device>>>,
    _socket: Option<StatisticsSocket>,
}

impl StatisticsPage {
    /// A process that cannot show its counters works all the same.
    pub fn show(device: &Device, program: &'static str) -> Self {
        let device = Arc::new(Mutex::new(Some(device.clone())));
        let shown = device.clone();
        let document = move || {
            let device = shown.lock().unwrap_or_else(PoisonError::into_inner);
            serde_json::json!({
                "program": program,
                "devices": device.iter().map(Device::statistics).collect::<Vec<_>>(),
            })
        };
        let socket = StatisticsSocket::serve(document);
        let _socket = socket.inspect_err(|error| tracing::warn!(%error, "no counters for `softrdma stat`")).ok();
        Self { device, _socket }
    }
}

impl Drop for StatisticsPage {
    fn drop(&mut self) {
        self.device.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
