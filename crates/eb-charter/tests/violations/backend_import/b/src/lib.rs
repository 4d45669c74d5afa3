//! A backend that minds its own business.

use eb_contract::Topic;
