-- Sums of the rollup rows in some pieces of time, per bucket and whatever else the report tells apart.
--
-- ?1 pieces as [[width_s, start_s, end_s], ...]    ?2 width of the buckets in seconds
-- ?3 by API key    ?4 by model    ?5 by service tier
-- ?6 endpoints    ?7 projects    ?8 API keys    ?9 models: lists, NULL for all    ?10 batch: 0, 1, NULL for both
--
-- CROSS JOIN keeps the order of the tables: for each piece one range of the primary key.
-- SUM over i64 overflows at 9.2 million dollars, so whole micro-dollars and the rest are summed apart.
WITH pieces AS (
    SELECT value ->> 0 AS width_s, value ->> 1 AS start_s, value ->> 2 AS end_s FROM json_each(?1)
),
sums AS (
    SELECT r.bucket_start_s - r.bucket_start_s % ?2 AS bucket_start_s,
           iif(?3, r.api_key, NULL) AS api_key,
           iif(?4, r.model, NULL) AS model,
           iif(?5, r.service_tier, NULL) AS service_tier,
           sum(r.requests) AS requests,
           sum(r.unpriced_requests) AS unpriced_requests,
           sum(r.input_text) AS input_text,
           sum(r.input_cached_text) AS input_cached_text,
           sum(r.input_cache_write_text) AS input_cache_write_text,
           sum(r.input_audio) AS input_audio,
           sum(r.input_cached_audio) AS input_cached_audio,
           sum(r.input_image) AS input_image,
           sum(r.input_cached_image) AS input_cached_image,
           sum(r.output_text) AS output_text,
           sum(r.output_audio) AS output_audio,
           sum(r.output_image) AS output_image,
           sum(r.input_text_pico / 1000000) AS input_text_micro,
           sum(r.input_text_pico % 1000000) AS input_text_pico,
           sum(r.input_cached_text_pico / 1000000) AS input_cached_text_micro,
           sum(r.input_cached_text_pico % 1000000) AS input_cached_text_pico,
           sum(r.input_cache_write_text_pico / 1000000) AS input_cache_write_text_micro,
           sum(r.input_cache_write_text_pico % 1000000) AS input_cache_write_text_pico,
           sum(r.input_audio_pico / 1000000) AS input_audio_micro,
           sum(r.input_audio_pico % 1000000) AS input_audio_pico,
           sum(r.input_cached_audio_pico / 1000000) AS input_cached_audio_micro,
           sum(r.input_cached_audio_pico % 1000000) AS input_cached_audio_pico,
           sum(r.input_image_pico / 1000000) AS input_image_micro,
           sum(r.input_image_pico % 1000000) AS input_image_pico,
           sum(r.input_cached_image_pico / 1000000) AS input_cached_image_micro,
           sum(r.input_cached_image_pico % 1000000) AS input_cached_image_pico,
           sum(r.output_text_pico / 1000000) AS output_text_micro,
           sum(r.output_text_pico % 1000000) AS output_text_pico,
           sum(r.output_audio_pico / 1000000) AS output_audio_micro,
           sum(r.output_audio_pico % 1000000) AS output_audio_pico,
           sum(r.output_image_pico / 1000000) AS output_image_micro,
           sum(r.output_image_pico % 1000000) AS output_image_pico
    FROM pieces
    CROSS JOIN rollups r ON r.width_s = pieces.width_s
        AND r.bucket_start_s >= pieces.start_s AND r.bucket_start_s < pieces.end_s
    WHERE (?6 IS NULL OR r.endpoint IN (SELECT number FROM names WHERE name IN (SELECT value FROM json_each(?6))))
      AND (?7 IS NULL OR r.api_key IN (SELECT number FROM api_keys WHERE project_id IN (SELECT value FROM json_each(?7))))
      AND (?8 IS NULL OR r.api_key IN (SELECT number FROM api_keys WHERE id IN (SELECT value FROM json_each(?8))))
      AND (?9 IS NULL OR r.model IN (SELECT number FROM names WHERE name IN (SELECT value FROM json_each(?9))))
      AND (?10 IS NULL OR (r.service_tier IN (SELECT number FROM names WHERE name = 'batch')) = ?10)
    GROUP BY 1, 2, 3, 4
)
SELECT sums.*, k.project_id, k.id AS api_key_id, m.name AS model_name, t.name AS service_tier_name
FROM sums
LEFT JOIN api_keys k ON k.number = sums.api_key
LEFT JOIN names m ON m.number = sums.model
LEFT JOIN names t ON t.number = sums.service_tier
