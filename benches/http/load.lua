-- A fixed amount of work for wrk: exactly `total` requests, each answer checked, then it waits to be ended by SIGINT.
-- Arguments: number of requests, file with the request body, API key, what each answer must contain, what it must end with.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

function init(args)
   total = tonumber(args[1])
   local file = assert(io.open(args[2], "rb"))
   local headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. args[3] }
   message = wrk.format("POST", wrk.path, headers, file:read("*a"))
   file:close()
   needle, ending = args[4], args[5]:gsub("\\n", "\n")
   sent, completed, wrong, first_wrong = 0, 0, 0, ""
end

-- Asked before each request: once all are sent, the connections wait for longer than the run lasts.
function delay()
   sent = sent + 1
   return sent <= total and 0 or 3600000
end

function request()
   return message
end

function response(status, _, body)
   completed = completed + 1
   local right = status == 200 and body:find(needle, 1, true) and body:sub(-#ending) == ending
   if not right then
      wrong = wrong + 1
      if first_wrong == "" then first_wrong = status .. " " .. body:sub(1, 300):gsub("[^%g ]", " ") end
   end
   if completed == total then
      io.stdout:write("finished\n")
      io.stdout:flush()
   end
end

function done(summary)
   local thread = threads[1]
   local errors = summary.errors
   io.stdout:write(string.format("completed=%d\n", thread:get("completed")))
   io.stdout:write(string.format("wrong=%d\n", thread:get("wrong")))
   io.stdout:write(string.format("first_wrong=%s\n", thread:get("first_wrong")))
   io.stdout:write(string.format("non_2xx=%d\n", errors.status))
   io.stdout:write(string.format("broken=%d\n", errors.connect + errors.read + errors.write + errors.timeout))
end
