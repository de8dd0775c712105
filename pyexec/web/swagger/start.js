"use strict";

SwaggerUIBundle({
  url: new URL("../openapi.json", document.baseURI).href,
  domNode: document.getElementById("swagger-ui"),
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
