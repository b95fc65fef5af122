-- A request that had no price and was given one by an adjustment has a cost, and is priced.

DROP VIEW ledger;

-- The ledger as a person reads it.
CREATE VIEW ledger AS
SELECT 'req_' || lower(hex(e.request_id)) AS request_id,
       datetime((e.admitted_at_ms + e.duration_ms) / 1000, 'unixepoch') AS settled_at,
       k.project_id, k.id AS api_key_id,
       n1.name AS endpoint, n2.name AS model, n3.name AS requested_model, n4.name AS service_tier,
       n5.name AS outcome, n6.name AS basis, n.status, n.stream,
       e.duration_ms,
       e.input_text, e.input_cached_text, e.input_cache_write_text, e.input_audio,
       e.input_cached_audio, e.input_image, e.input_cached_image, e.output_text,
       e.output_audio, e.output_image,
       -- with adjustments; NULL when nothing of it has a price: unpriced, not free
       CASE WHEN t.priced = 1 OR t.prices <> '{}' OR EXISTS (SELECT 1 FROM adjustments a WHERE a.request_id = e.request_id) THEN
           e.input_text * coalesce(t.prices ->> 'input_text', 0) +
           e.input_cached_text * coalesce(t.prices ->> 'input_cached_text', 0) +
           e.input_cache_write_text * coalesce(t.prices ->> 'input_cache_write_text', 0) +
           e.input_audio * coalesce(t.prices ->> 'input_audio', 0) +
           e.input_cached_audio * coalesce(t.prices ->> 'input_cached_audio', 0) +
           e.input_image * coalesce(t.prices ->> 'input_image', 0) +
           e.input_cached_image * coalesce(t.prices ->> 'input_cached_image', 0) +
           e.output_text * coalesce(t.prices ->> 'output_text', 0) +
           e.output_audio * coalesce(t.prices ->> 'output_audio', 0) +
           e.output_image * coalesce(t.prices ->> 'output_image', 0)
           + coalesce((
               SELECT sum(
                   a.input_text * coalesce(d.prices ->> 'input_text', 0) +
                   a.input_cached_text * coalesce(d.prices ->> 'input_cached_text', 0) +
                   a.input_cache_write_text * coalesce(d.prices ->> 'input_cache_write_text', 0) +
                   a.input_audio * coalesce(d.prices ->> 'input_audio', 0) +
                   a.input_cached_audio * coalesce(d.prices ->> 'input_cached_audio', 0) +
                   a.input_image * coalesce(d.prices ->> 'input_image', 0) +
                   a.input_cached_image * coalesce(d.prices ->> 'input_cached_image', 0) +
                   a.output_text * coalesce(d.prices ->> 'output_text', 0) +
                   a.output_audio * coalesce(d.prices ->> 'output_audio', 0) +
                   a.output_image * coalesce(d.prices ->> 'output_image', 0)
               ) FROM adjustments a JOIN tariffs d ON d.number = a.tariff WHERE a.request_id = e.request_id
           ), 0)
       END AS cost_pico,
       max(t.priced, EXISTS (SELECT 1 FROM adjustments a WHERE a.request_id = e.request_id AND a.requests = 1)) AS priced
FROM entries e
JOIN api_keys k ON k.number = e.api_key
JOIN tariffs t ON t.number = e.tariff
JOIN endings n ON n.number = e.ending
JOIN names n1 ON n1.number = t.endpoint
JOIN names n2 ON n2.number = t.model
JOIN names n3 ON n3.number = n.requested_model
JOIN names n4 ON n4.number = t.service_tier
JOIN names n5 ON n5.number = n.outcome
JOIN names n6 ON n6.number = n.basis;
