// The page is painted before the modules are read: in a browser that was just started they kept the first paint back by
// 20 to 30 of its 100 ms.
requestAnimationFrame(() => setTimeout(() => import("./console.js")));
