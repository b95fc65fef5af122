//! Usage and cost reports: parameters, buckets, paging.
