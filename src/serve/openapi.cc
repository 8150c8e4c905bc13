// The description of the API, from the table that routes requests.
#include "serve/service.h"

namespace nautile::serve {

Json openapi(const std::string& version) {
  return {{"openapi", "3.1.0"}, {"info", {{"title", "Nautile"}, {"version", version}}}, {"paths", Json::object()}};
}

}  // namespace nautile::serve
