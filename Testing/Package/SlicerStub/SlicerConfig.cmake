# A stand-in for 3D Slicer's build system: configures and installs this extension without Slicer, and is as strict
# about its input as Slicer 5.12 (CMake/SlicerMacroBuildScriptedModule.cmake, SlicerMacroPythonTesting.cmake) or stricter.
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/GenerateConfig.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/CPack.cmake")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "lib/Slicer-5.12/qt-scripted-modules")
