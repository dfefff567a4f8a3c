//! Fakes for every port.
