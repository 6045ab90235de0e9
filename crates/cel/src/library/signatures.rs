//! Signatures: `name(types) -> type overload`, members as `(target).name(types) -> type overload`.

/// The language itself.
pub(super) const STANDARD: &str = "
    _?_:_(bool, A, A) -> A conditional
    _&&_(bool, bool) -> bool logical_and
    _||_(bool, bool) -> bool logical_or
    !_(bool) -> bool logical_not
    @not_strictly_false(bool) -> bool not_strictly_false
    _==_(A, A) -> bool equals
    _!=_(A, A) -> bool not_equals
    _+_(bytes, bytes) -> bytes add_bytes
    _+_(double, double) -> double add_double
    _+_(duration, duration) -> duration add_duration_duration
    _+_(duration, timestamp) -> timestamp add_duration_timestamp
    _+_(timestamp, duration) -> timestamp add_timestamp_duration
    _+_(int, int) -> int add_int64
    _+_(list(A), list(A)) -> list(A) add_list
    _+_(string, string) -> string add_string
    _+_(uint, uint) -> uint add_uint64
    _/_(double, double) -> double divide_double
    _/_(int, int) -> int divide_int64
    _/_(uint, uint) -> uint divide_uint64
    _%_(int, int) -> int modulo_int64
    _%_(uint, uint) -> uint modulo_uint64
    _*_(double, double) -> double multiply_double
    _*_(int, int) -> int multiply_int64
    _*_(uint, uint) -> uint multiply_uint64
    -_(double) -> double negate_double
    -_(int) -> int negate_int64
    _-_(double, double) -> double subtract_double
    _-_(duration, duration) -> duration subtract_duration_duration
    _-_(int, int) -> int subtract_int64
    _-_(timestamp, duration) -> timestamp subtract_timestamp_duration
    _-_(timestamp, timestamp) -> duration subtract_timestamp_timestamp
    _-_(uint, uint) -> uint subtract_uint64
    _<_(bool, bool) -> bool less_bool
    _<_(int, int) -> bool less_int64
    _<_(int, uint) -> bool less_int64_uint64
    _<_(int, double) -> bool less_int64_double
    _<_(uint, uint) -> bool less_uint64
    _<_(uint, int) -> bool less_uint64_int64
    _<_(uint, double) -> bool less_uint64_double
    _<_(double, double) -> bool less_double
    _<_(double, int) -> bool less_double_int64
    _<_(double, uint) -> bool less_double_uint64
    _<_(string, string) -> bool less_string
    _<_(bytes, bytes) -> bool less_bytes
    _<_(timestamp, timestamp) -> bool less_timestamp
    _<_(duration, duration) -> bool less_duration
    _<=_(bool, bool) -> bool less_equals_bool
    _<=_(int, int) -> bool less_equals_int64
    _<=_(int, uint) -> bool less_equals_int64_uint64
    _<=_(int, double) -> bool less_equals_int64_double
    _<=_(uint, uint) -> bool less_equals_uint64
    _<=_(uint, int) -> bool less_equals_uint64_int64
    _<=_(uint, double) -> bool less_equals_uint64_double
    _<=_(double, double) -> bool less_equals_double
    _<=_(double, int) -> bool less_equals_double_int64
    _<=_(double, uint) -> bool less_equals_double_uint64
    _<=_(string, string) -> bool less_equals_string
    _<=_(bytes, bytes) -> bool less_equals_bytes
    _<=_(timestamp, timestamp) -> bool less_equals_timestamp
    _<=_(duration, duration) -> bool less_equals_duration
    _>_(bool, bool) -> bool greater_bool
    _>_(int, int) -> bool greater_int64
    _>_(int, uint) -> bool greater_int64_uint64
    _>_(int, double) -> bool greater_int64_double
    _>_(uint, uint) -> bool greater_uint64
    _>_(uint, int) -> bool greater_uint64_int64
    _>_(uint, double) -> bool greater_uint64_double
    _>_(double, double) -> bool greater_double
    _>_(double, int) -> bool greater_double_int64
    _>_(double, uint) -> bool greater_double_uint64
    _>_(string, string) -> bool greater_string
    _>_(bytes, bytes) -> bool greater_bytes
    _>_(timestamp, timestamp) -> bool greater_timestamp
    _>_(duration, duration) -> bool greater_duration
    _>=_(bool, bool) -> bool greater_equals_bool
    _>=_(int, int) -> bool greater_equals_int64
    _>=_(int, uint) -> bool greater_equals_int64_uint64
    _>=_(int, double) -> bool greater_equals_int64_double
    _>=_(uint, uint) -> bool greater_equals_uint64
    _>=_(uint, int) -> bool greater_equals_uint64_int64
    _>=_(uint, double) -> bool greater_equals_uint64_double
    _>=_(double, double) -> bool greater_equals_double
    _>=_(double, int) -> bool greater_equals_double_int64
    _>=_(double, uint) -> bool greater_equals_double_uint64
    _>=_(string, string) -> bool greater_equals_string
    _>=_(bytes, bytes) -> bool greater_equals_bytes
    _>=_(timestamp, timestamp) -> bool greater_equals_timestamp
    _>=_(duration, duration) -> bool greater_equals_duration
    _[_](list(A), int) -> A index_list
    _[_](map(A, B), A) -> B index_map
    @in(A, list(A)) -> bool in_list
    @in(A, map(A, B)) -> bool in_map
    size(bytes) -> int size_bytes
    (bytes).size() -> int bytes_size
    size(list(A)) -> int size_list
    (list(A)).size() -> int list_size
    size(map(A, B)) -> int size_map
    (map(A, B)).size() -> int map_size
    size(string) -> int size_string
    (string).size() -> int string_size
    type(A) -> type(A) type
    bool(bool) -> bool bool_to_bool
    bool(string) -> bool string_to_bool
    bytes(bytes) -> bytes bytes_to_bytes
    bytes(string) -> bytes string_to_bytes
    double(double) -> double double_to_double
    double(int) -> double int64_to_double
    double(string) -> double string_to_double
    double(uint) -> double uint64_to_double
    duration(duration) -> duration duration_to_duration
    duration(int) -> duration int64_to_duration
    duration(string) -> duration string_to_duration
    int(int) -> int int64_to_int64
    int(double) -> int double_to_int64
    int(duration) -> int duration_to_int64
    int(string) -> int string_to_int64
    int(timestamp) -> int timestamp_to_int64
    int(uint) -> int uint64_to_int64
    string(string) -> string string_to_string
    string(bool) -> string bool_to_string
    string(bytes) -> string bytes_to_string
    string(double) -> string double_to_string
    string(duration) -> string duration_to_string
    string(int) -> string int64_to_string
    string(timestamp) -> string timestamp_to_string
    string(uint) -> string uint64_to_string
    timestamp(timestamp) -> timestamp timestamp_to_timestamp
    timestamp(int) -> timestamp int64_to_timestamp
    timestamp(string) -> timestamp string_to_timestamp
    uint(uint) -> uint uint64_to_uint64
    uint(double) -> uint double_to_uint64
    uint(int) -> uint int64_to_uint64
    uint(string) -> uint string_to_uint64
    dyn(A) -> dyn to_dyn
    (string).contains(string) -> bool contains_string
    (string).endsWith(string) -> bool ends_with_string
    (string).startsWith(string) -> bool starts_with_string
    matches(string, string) -> bool matches
    (string).matches(string) -> bool matches_string
    (timestamp).getFullYear() -> int timestamp_to_year
    (timestamp).getFullYear(string) -> int timestamp_to_year_with_tz
    (timestamp).getMonth() -> int timestamp_to_month
    (timestamp).getMonth(string) -> int timestamp_to_month_with_tz
    (timestamp).getDayOfYear() -> int timestamp_to_day_of_year
    (timestamp).getDayOfYear(string) -> int timestamp_to_day_of_year_with_tz
    (timestamp).getDayOfMonth() -> int timestamp_to_day_of_month
    (timestamp).getDayOfMonth(string) -> int timestamp_to_day_of_month_with_tz
    (timestamp).getDate() -> int timestamp_to_day_of_month_1_based
    (timestamp).getDate(string) -> int timestamp_to_day_of_month_1_based_with_tz
    (timestamp).getDayOfWeek() -> int timestamp_to_day_of_week
    (timestamp).getDayOfWeek(string) -> int timestamp_to_day_of_week_with_tz
    (timestamp).getHours() -> int timestamp_to_hours
    (timestamp).getHours(string) -> int timestamp_to_hours_with_tz
    (duration).getHours() -> int duration_to_hours
    (timestamp).getMinutes() -> int timestamp_to_minutes
    (timestamp).getMinutes(string) -> int timestamp_to_minutes_with_tz
    (duration).getMinutes() -> int duration_to_minutes
    (timestamp).getSeconds() -> int timestamp_to_seconds
    (timestamp).getSeconds(string) -> int timestamp_to_seconds_with_tz
    (duration).getSeconds() -> int duration_to_seconds
    (timestamp).getMilliseconds() -> int timestamp_to_milliseconds
    (timestamp).getMilliseconds(string) -> int timestamp_to_milliseconds_with_tz
    (duration).getMilliseconds() -> int duration_to_milliseconds
";

/// Kubernetes' functions on lists.
pub(super) const LISTS: &str = "
    (list(int)).isSorted() -> bool list_int_is_sorted_bool
    (list(uint)).isSorted() -> bool list_uint_is_sorted_bool
    (list(double)).isSorted() -> bool list_double_is_sorted_bool
    (list(bool)).isSorted() -> bool list_bool_is_sorted_bool
    (list(duration)).isSorted() -> bool list_duration_is_sorted_bool
    (list(timestamp)).isSorted() -> bool list_timestamp_is_sorted_bool
    (list(string)).isSorted() -> bool list_string_is_sorted_bool
    (list(bytes)).isSorted() -> bool list_bytes_is_sorted_bool
    (list(int)).sum() -> int list_int_sum_int
    (list(uint)).sum() -> uint list_uint_sum_uint
    (list(double)).sum() -> double list_double_sum_double
    (list(duration)).sum() -> duration list_duration_sum_duration
    (list(int)).max() -> int list_int_max_int
    (list(uint)).max() -> uint list_uint_max_uint
    (list(double)).max() -> double list_double_max_double
    (list(bool)).max() -> bool list_bool_max_bool
    (list(duration)).max() -> duration list_duration_max_duration
    (list(timestamp)).max() -> timestamp list_timestamp_max_timestamp
    (list(string)).max() -> string list_string_max_string
    (list(bytes)).max() -> bytes list_bytes_max_bytes
    (list(int)).min() -> int list_int_min_int
    (list(uint)).min() -> uint list_uint_min_uint
    (list(double)).min() -> double list_double_min_double
    (list(bool)).min() -> bool list_bool_min_bool
    (list(duration)).min() -> duration list_duration_min_duration
    (list(timestamp)).min() -> timestamp list_timestamp_min_timestamp
    (list(string)).min() -> string list_string_min_string
    (list(bytes)).min() -> bytes list_bytes_min_bytes
    (list(A)).indexOf(A) -> int list_a_index_of_int
    (list(A)).lastIndexOf(A) -> int list_a_last_index_of_int
";

/// Kubernetes' functions on regular expressions.
pub(super) const REGEX: &str = "
    (string).find(string) -> string string_find_string
    (string).findAll(string) -> list(string) string_find_all_string
    (string).findAll(string, int) -> list(string) string_find_all_string_int
";

/// URLs.
pub(super) const URLS: &str = "
    url(string) -> kubernetes.URL string_to_url
    (kubernetes.URL).getScheme() -> string url_get_scheme
    (kubernetes.URL).getHost() -> string url_get_host
    (kubernetes.URL).getHostname() -> string url_get_hostname
    (kubernetes.URL).getPort() -> string url_get_port
    (kubernetes.URL).getEscapedPath() -> string url_get_escaped_path
    (kubernetes.URL).getQuery() -> map(string, list(string)) url_get_query
    isURL(string) -> bool is_url_string
";

/// Questions to the authorizer.
pub(super) const AUTHZ: &str = "
    (kubernetes.authorization.Authorizer).path(string) -> kubernetes.authorization.PathCheck authorizer_path
    (kubernetes.authorization.Authorizer).group(string) -> kubernetes.authorization.GroupCheck authorizer_group
    (kubernetes.authorization.Authorizer).serviceAccount(string, string) -> kubernetes.authorization.Authorizer authorizer_serviceaccount
    (kubernetes.authorization.GroupCheck).resource(string) -> kubernetes.authorization.ResourceCheck groupcheck_resource
    (kubernetes.authorization.ResourceCheck).subresource(string) -> kubernetes.authorization.ResourceCheck resourcecheck_subresource
    (kubernetes.authorization.ResourceCheck).namespace(string) -> kubernetes.authorization.ResourceCheck resourcecheck_namespace
    (kubernetes.authorization.ResourceCheck).name(string) -> kubernetes.authorization.ResourceCheck resourcecheck_name
    (kubernetes.authorization.PathCheck).check(string) -> kubernetes.authorization.Decision pathcheck_check
    (kubernetes.authorization.ResourceCheck).check(string) -> kubernetes.authorization.Decision resourcecheck_check
    (kubernetes.authorization.Decision).errored() -> bool decision_errored
    (kubernetes.authorization.Decision).error() -> string decision_error
    (kubernetes.authorization.Decision).allowed() -> bool decision_allowed
    (kubernetes.authorization.Decision).reason() -> string decision_reason
";

/// Selectors in questions to the authorizer.
pub(super) const AUTHZ_SELECTORS: &str = "
    (kubernetes.authorization.ResourceCheck).fieldSelector(string) -> kubernetes.authorization.ResourceCheck authorizer_fieldselector
    (kubernetes.authorization.ResourceCheck).labelSelector(string) -> kubernetes.authorization.ResourceCheck authorizer_labelselector
";

/// Optional values.
pub(super) const OPTIONAL: &str = "
    optional.of(V) -> optional(V) optional_of
    optional.ofNonZeroValue(V) -> optional(V) optional_ofNonZeroValue
    optional.none() -> optional(V) optional_none
    (optional(V)).value() -> V optional_value
    (optional(V)).hasValue() -> bool optional_hasValue
    (optional(V)).or(optional(V)) -> optional(V) optional_or_optional
    (optional(V)).orValue(V) -> V optional_orValue_value
    _?._(dyn, string) -> optional(V) select_optional_field
    _[?_](list(V), int) -> optional(V) list_optindex_optional_int
    _[?_](optional(list(V)), int) -> optional(V) optional_list_optindex_optional_int
    _[?_](map(K, V), K) -> optional(V) map_optindex_optional_value
    _[?_](optional(map(K, V)), K) -> optional(V) optional_map_optindex_optional_value
    _[_](optional(list(V)), int) -> optional(V) optional_list_index_int
    _[_](optional(map(K, V)), K) -> optional(V) optional_map_index_value
    (list(V)).last() -> optional(V) list_last
    (list(V)).first() -> optional(V) list_first
    optional.unwrap(list(optional(V))) -> list(V) optional_unwrap
    (list(optional(V))).unwrapOpt() -> list(V) optional_unwrapOpt
";

/// Resource quantities.
pub(super) const QUANTITY: &str = "
    quantity(string) -> kubernetes.Quantity string_to_quantity
    isQuantity(string) -> bool is_quantity_string
    sign(kubernetes.Quantity) -> int quantity_sign
    (kubernetes.Quantity).isGreaterThan(kubernetes.Quantity) -> bool quantity_is_greater_than
    (kubernetes.Quantity).isLessThan(kubernetes.Quantity) -> bool quantity_is_less_than
    (kubernetes.Quantity).compareTo(kubernetes.Quantity) -> int quantity_compare_to
    (kubernetes.Quantity).asApproximateFloat() -> double quantity_get_float
    (kubernetes.Quantity).asInteger() -> int quantity_get_int
    (kubernetes.Quantity).isInteger() -> bool quantity_is_integer
    (kubernetes.Quantity).add(kubernetes.Quantity) -> kubernetes.Quantity quantity_add
    (kubernetes.Quantity).add(int) -> kubernetes.Quantity quantity_add_int
    (kubernetes.Quantity).sub(kubernetes.Quantity) -> kubernetes.Quantity quantity_sub
    (kubernetes.Quantity).sub(int) -> kubernetes.Quantity quantity_sub_int
";

/// Strings, the second version of the extension.
pub(super) const STRINGS: &str = "
    (string).charAt(int) -> string string_char_at_int
    (string).indexOf(string) -> int string_index_of_string
    (string).indexOf(string, int) -> int string_index_of_string_int
    (string).lastIndexOf(string) -> int string_last_index_of_string
    (string).lastIndexOf(string, int) -> int string_last_index_of_string_int
    (string).lowerAscii() -> string string_lower_ascii
    (string).replace(string, string) -> string string_replace_string_string
    (string).replace(string, string, int) -> string string_replace_string_string_int
    (string).split(string) -> list(string) string_split_string
    (string).split(string, int) -> list(string) string_split_string_int
    (string).substring(int) -> string string_substring_int
    (string).substring(int, int) -> string string_substring_int_int
    (string).trim() -> string string_trim
    (string).upperAscii() -> string string_upper_ascii
    (string).format(list(dyn)) -> string string_format
    strings.quote(string) -> string strings_quote
    (list(string)).join() -> string list_join
    (list(string)).join(string) -> string list_join_string
";

/// Lists as sets.
pub(super) const SETS: &str = "
    sets.contains(list(T), list(T)) -> bool list_sets_contains_list
    sets.equivalent(list(T), list(T)) -> bool list_sets_equivalent_list
    sets.intersects(list(T), list(T)) -> bool list_sets_intersects_list
";

/// Addresses.
pub(super) const IP: &str = "
    ip(string) -> net.IP string_to_ip
    (net.IP).family() -> int ip_family
    ip.isCanonical(string) -> bool ip_is_canonical
    (net.IP).isUnspecified() -> bool ip_is_unspecified
    (net.IP).isLoopback() -> bool ip_is_loopback
    (net.IP).isLinkLocalMulticast() -> bool ip_is_link_local_multicast
    (net.IP).isLinkLocalUnicast() -> bool ip_is_link_local_unicast
    (net.IP).isGlobalUnicast() -> bool ip_is_global_unicast
    isIP(string) -> bool is_ip
    string(net.IP) -> string ip_to_string
";

/// Networks.
pub(super) const CIDR: &str = "
    cidr(string) -> net.CIDR string_to_cidr
    (net.CIDR).containsIP(string) -> bool cidr_contains_ip_string
    (net.CIDR).containsIP(net.IP) -> bool cidr_contains_ip_ip
    (net.CIDR).containsCIDR(string) -> bool cidr_contains_cidr_string
    (net.CIDR).containsCIDR(net.CIDR) -> bool cidr_contains_cidr
    (net.CIDR).ip() -> net.IP cidr_ip
    (net.CIDR).prefixLength() -> int cidr_prefix_length
    (net.CIDR).masked() -> net.CIDR cidr_masked
    isCIDR(string) -> bool is_cidr
    string(net.CIDR) -> string cidr_to_string
";

/// Named formats.
pub(super) const FORMAT: &str = "
    (kubernetes.NamedFormat).validate(string) -> optional(list(string)) format-validate
    format.named(string) -> optional(kubernetes.NamedFormat) format-named
    format.dns1123Label() -> kubernetes.NamedFormat format.dns1123Label
    format.dns1123Subdomain() -> kubernetes.NamedFormat format.dns1123Subdomain
    format.dns1035Label() -> kubernetes.NamedFormat format.dns1035Label
    format.qualifiedName() -> kubernetes.NamedFormat format.qualifiedName
    format.dns1123LabelPrefix() -> kubernetes.NamedFormat format.dns1123LabelPrefix
    format.dns1123SubdomainPrefix() -> kubernetes.NamedFormat format.dns1123SubdomainPrefix
    format.dns1035LabelPrefix() -> kubernetes.NamedFormat format.dns1035LabelPrefix
    format.labelValue() -> kubernetes.NamedFormat format.labelValue
    format.uri() -> kubernetes.NamedFormat format.uri
    format.uuid() -> kubernetes.NamedFormat format.uuid
    format.byte() -> kubernetes.NamedFormat format.byte
    format.date() -> kubernetes.NamedFormat format.date
    format.datetime() -> kubernetes.NamedFormat format.datetime
";

/// What macros with two variables become.
pub(super) const TWO_VARIABLES: &str = "
    cel.@mapInsert(map(K, V), K, V) -> map(K, V) @mapInsert_map_key_value
    cel.@mapInsert(map(K, V), map(K, V)) -> map(K, V) @mapInsert_map_map
";

/// Semantic versions.
pub(super) const SEMVER: &str = "
    semver(string) -> kubernetes.Semver string_to_semver
    semver(string, bool) -> kubernetes.Semver string_bool_to_semver
    isSemver(string) -> bool is_semver_string
    isSemver(string, bool) -> bool is_semver_string_bool
    (kubernetes.Semver).isGreaterThan(kubernetes.Semver) -> bool semver_is_greater_than
    (kubernetes.Semver).isLessThan(kubernetes.Semver) -> bool semver_is_less_than
    (kubernetes.Semver).compareTo(kubernetes.Semver) -> int semver_compare_to
    (kubernetes.Semver).major() -> int semver_major
    (kubernetes.Semver).minor() -> int semver_minor
    (kubernetes.Semver).patch() -> int semver_patch
";

/// The third version of the extension of lists.
pub(super) const LISTS_EXTENSION: &str = "
    (list(T)).slice(int, int) -> list(T) list_slice
    (list(list(T))).flatten() -> list(T) list_flatten
    (list(dyn)).flatten(int) -> list(dyn) list_flatten_int
    (list(int)).sort() -> list(int) list_int_sort
    (list(uint)).sort() -> list(uint) list_uint_sort
    (list(double)).sort() -> list(double) list_double_sort
    (list(bool)).sort() -> list(bool) list_bool_sort
    (list(duration)).sort() -> list(duration) list_google.protobuf.Duration_sort
    (list(timestamp)).sort() -> list(timestamp) list_google.protobuf.Timestamp_sort
    (list(string)).sort() -> list(string) list_string_sort
    (list(bytes)).sort() -> list(bytes) list_bytes_sort
    (list(T)).@sortByAssociatedKeys(list(int)) -> list(T) list_int_sortByAssociatedKeys
    (list(T)).@sortByAssociatedKeys(list(uint)) -> list(T) list_uint_sortByAssociatedKeys
    (list(T)).@sortByAssociatedKeys(list(double)) -> list(T) list_double_sortByAssociatedKeys
    (list(T)).@sortByAssociatedKeys(list(bool)) -> list(T) list_bool_sortByAssociatedKeys
    (list(T)).@sortByAssociatedKeys(list(duration)) -> list(T) list_google.protobuf.Duration_sortByAssociatedKeys
    (list(T)).@sortByAssociatedKeys(list(timestamp)) -> list(T) list_google.protobuf.Timestamp_sortByAssociatedKeys
    (list(T)).@sortByAssociatedKeys(list(string)) -> list(T) list_string_sortByAssociatedKeys
    (list(T)).@sortByAssociatedKeys(list(bytes)) -> list(T) list_bytes_sortByAssociatedKeys
    lists.range(int) -> list(int) lists_range
    (list(T)).reverse() -> list(T) list_reverse
    (list(T)).distinct() -> list(T) list_distinct
";

/// What mutating policies have besides.
pub(super) const JSON_PATCH: &str = "jsonpatch.escapeKey(string) -> string string_jsonpatch_escapeKey_string";

/// Every library with the minor version of Kubernetes that got it.
pub(super) const BASE: &[(u16, &str)] = &[
    (0, STANDARD),
    (0, URLS),
    (0, REGEX),
    (0, LISTS),
    (27, AUTHZ),
    (28, OPTIONAL),
    (28, QUANTITY),
    (29, STRINGS),
    (29, SETS),
    (30, IP),
    (30, CIDR),
    (31, FORMAT),
    (31, AUTHZ_SELECTORS),
    (32, TWO_VARIABLES),
    (33, SEMVER),
    (34, LISTS_EXTENSION),
];
